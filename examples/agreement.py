"""The obtained scores beside the published ones, with intervals: do they agree?"""

import argparse
from collections.abc import Mapping

import fusecomp as fc
from fusecomp.evaluation import bootstrap
from fusecomp.report import Table, comparison_table

_SUM, _PLAIN = "CLIP RN50x4, Sum, nothing trained", "Combiner on plain CLIP"
_TUNED = {"2022": "text encoder tuned + Combiner", "2023": "both encoders tuned + Combiner"}


def published_systems(args: argparse.Namespace) -> dict[str, str]:
    """Return the published system of each row of the final table that has one.

    Only a CLIP of the published size compares; features of one's own are of an unknown encoder.
    """
    tuned = _TUNED[args.preset]
    if args.clip_checkpoint is not None:
        return {"plain, Combiner": tuned, "Combiner": tuned}
    if args.backbone is None or not args.backbone.startswith("RN50x4"):
        return {}
    return {
        "plain, Sum": _SUM,
        "Sum": _SUM,
        "plain, Combiner": _PLAIN,
        "Combiner": _PLAIN,
        "tuned, Combiner": tuned,
    }


def agreement_table(
    rows: Mapping[str, fc.Evaluation], systems: Mapping[str, str], *, resamples: int = 10_000
) -> Table:
    """Tabulate each published number, the obtained one, its 95 % interval, and whether it holds it.

    A published number of another protocol is shown, and not compared.

    Args:
        rows: one's own evaluations by name.
        systems: the published system of some of them.
        resamples: of the bootstrap.

    Raises:
        ValueError: if nothing is published of the dataset.
    """
    published = {row["name"]: row for row in comparison_table(rows).to_dict()["rows"]}
    cells, content = [], []
    for name, evaluation in rows.items():
        row = published.get(systems.get(name, ""))
        if row is None:
            continue
        intervals = bootstrap(evaluation, resamples=resamples)
        for metric, number in row["metrics"].items():
            obtained, (low, high) = evaluation[metric], intervals[metric]
            agrees = None if row["differs_in"] else low <= number <= high
            verdict = "yes" if agrees else f"no, {obtained - number:+.2f}"
            if agrees is None:
                verdict = f"not compared: {', '.join(row['differs_in'])}"
            interval = f"[{low:.2f}, {high:.2f}]"
            cells.append([name, metric, f"{number:.2f}", f"{obtained:.2f}", interval, verdict])
            content.append(
                {"row": name, "metric": metric, "published": number, "obtained": obtained}
                | {"interval": [low, high], "agrees": agrees, "system": row["name"]}
            )
    return Table(
        head=("", "metric", "published", "obtained", "95 % interval", "agrees"),
        rows=cells,
        notes=(
            "In per cent; a published number agrees if the interval of the obtained one holds it",
            f"Percentile bootstrap over queries, {resamples:,} resamples, seed 0",
        ),
        content={"rows": content},
    )

from fusecomp.evaluation import Evaluation, bootstrap
from fusecomp.report._table import Table, short


def interval_table(evaluation: Evaluation, *, resamples: int = 10_000, seed: int = 0) -> Table:
    """Tabulate each metric with its 95 % interval, in per cent.

    Args:
        evaluation: to show.
        resamples: as in ``bootstrap``.
        seed: as in ``bootstrap``.

    Raises:
        TypeError: as ``bootstrap``.
        ValueError: as ``bootstrap``.
    """
    intervals = bootstrap(evaluation, resamples=resamples, seed=seed)
    return Table(
        head=("", "value", "95 % interval"),
        rows=[
            (short(name), f"{evaluation[name]:.2f}", f"[{low:.2f}, {high:.2f}]")
            for name, (low, high) in intervals.items()
        ],
        notes=(
            "; ".join(("In per cent", *evaluation.ranking.summary())),
            f"Percentile bootstrap over queries, {resamples:,} resamples, seed {seed}",
        ),
        content={
            "protocol": dict(evaluation.protocol),
            "resamples": resamples,
            "seed": seed,
            "metrics": {
                name: {"value": evaluation[name], **interval._asdict()}
                for name, interval in intervals.items()
            },
        },
    )

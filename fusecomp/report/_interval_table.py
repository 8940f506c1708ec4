from fusecomp.evaluation import Evaluation, bootstrap
from fusecomp.report._table import Table, short


def interval_table(evaluation: Evaluation, *, resamples: int = 10_000, seed: int = 0) -> Table:
    """Tabulate each metric with its 95 % interval, in per cent.

    Args:
        evaluation: gives the metrics.
        resamples: the number of resamples of ``bootstrap``.
        seed: the same one gives the same intervals.

    Raises:
        TypeError: if this is no evaluation.
        ValueError: if resamples are no whole number of at least 1, or seed none of at least 0.
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

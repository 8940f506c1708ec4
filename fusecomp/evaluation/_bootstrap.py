import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.checks import whole_number
from fusecomp.evaluation._evaluate import Evaluation, require_evaluation
from fusecomp.evaluation._rank import Ranking
from fusecomp.evaluation._tasks import average_tasks

# Numbers that are drawn at once, 8 bytes each.
_DRAWN = 2**22


class Interval(NamedTuple):
    """An interval that holds the middle 95 % of the resamples."""

    low: float
    high: float


def bootstrap(
    evaluation: Evaluation, *, resamples: int = 10_000, seed: int = 0
) -> dict[str, Interval]:
    """Estimate the 95 % interval of each metric over other queries of the same kind.

    The queries of each task are drawn with replacement (percentile bootstrap).

    Reference:
        Efron, Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall 1993, chapter 13.

    Args:
        evaluation: gives the values of each query.
        resamples: the number of resamples.
        seed: the same one gives the same intervals.

    Raises:
        TypeError: if this is no evaluation.
        ValueError: if resamples are no whole number of at least 1, or seed none of at least 0.
    """
    require_evaluation("evaluation", evaluation)
    resamples, seed = checked_draws(resamples, seed)
    (metrics,) = resampled([evaluation.ranking], resamples, seed)
    return {name: interval_of(values) for name, values in metrics.items()}


def interval_of(values: Tensor) -> Interval:
    """Return the interval of one metric's resamples [R]."""
    low, high = np.quantile(values.numpy(), (0.025, 0.975))
    return Interval(float(low), float(high))


def checked_draws(resamples: int, seed: int) -> tuple[int, int]:
    """Return both as ints; ValueError unless they are whole numbers of at least 1 and 0."""
    # NumPy takes seeds of any length.
    return whole_number("resamples", resamples, 1), whole_number("seed", seed, 0, math.inf)


def resampled(rankings: Sequence[Ranking], resamples: int, seed: int) -> list[Mapping[str, Tensor]]:
    """Return the metrics [R] of each ranking, of the same queries by the same draws."""
    generator = np.random.default_rng(seed)
    metrics: list[dict[str, dict[str, Tensor]]] = [{} for _ in rankings]
    for task in rankings[0]:
        values = [ranking[task].metric_values() for ranking in rankings]
        columns = [column.numpy() for each in values for column in each.values()]
        means = iter(_resampled_means(np.stack(columns, axis=1), resamples, generator).T)
        for each, resampled_means in zip(values, metrics, strict=True):
            resampled_means[task] = {name: torch.from_numpy(next(means)) for name in each}
    return [
        average_tasks([found.task for found in ranking.tasks], each)
        for each, ranking in zip(metrics, rankings, strict=True)
    ]


def _resampled_means(
    values: NDArray[np.bool_ | np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the column means [R, M] in per cent of R resamples of the rows of [Q, M]."""
    # It is enough to draw how often each kind of row occurs: for recalls some ten numbers a
    # resample in place of Q.
    kinds, counts = np.unique(values, axis=0, return_counts=True)
    block = max(1, _DRAWN // len(kinds))
    drawn = (
        generator.multinomial(len(values), counts / len(values), size=min(block, resamples - start))
        for start in range(0, resamples, block)
    )
    means: NDArray[np.float64] = np.concatenate([100.0 * (d @ kinds) / len(values) for d in drawn])
    return means

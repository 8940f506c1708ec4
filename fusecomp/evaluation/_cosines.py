import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fusecomp._core.checks import require_both
from fusecomp._core.devices import inference
from fusecomp._core.indices import (
    as_columns,
    check_indices,
    check_search,
    check_targets,
    index_pairs,
)
from fusecomp._core.similarity import cosine
from fusecomp._core.tensors import Array, as_tensor, widen
from fusecomp._core.tiles import compare_in_tiles
from fusecomp.evaluation._features import TaskFeatures
from fusecomp.evaluation._tasks import tasks_of
from fusecomp.model import ComposedEncoder
from fusecomp.types import Dataset, Similarity

_BINS = 200  # of the histograms
_ROWS = 256  # queries compared at once


@dataclass(frozen=True, slots=True, eq=False)
class CosineDistribution:
    """Distribution of the cosines of some pairs, or of their scores by a similarity.

    Args:
        counts: int64 [200], the number of pairs in each of 200 equal bins.
        total: the sum of the cosines.
        squares: the sum of their squares.
        bounds: where the bins begin and end.
    """

    counts: Tensor
    total: float
    squares: float
    bounds: tuple[float, float] = (-1.0, 1.0)

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """The mean cosine."""
        return self.total / self.pairs

    @property
    def std(self) -> float:
        """The standard deviation."""
        return math.sqrt(max(0.0, self.squares / self.pairs - self.mean**2))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        summary = {"pairs": self.pairs, "mean": self.mean, "std": self.std}
        return {**summary, "bounds": list(self.bounds), "counts": self.counts.tolist()}


@dataclass(frozen=True, slots=True, eq=False)
class Cosines:
    """Cosines of queries with their targets, and with the other images of their gallery.

    Args:
        target: cosines of each query and its target.
        others: cosines of each query and every other image that it is ranked among.
        protocol: the dataset's; empty for bare features.
        measure: ``"cosine"``, or ``"similarity"`` where the scores are of a fusion's own: then gaps
            of two fusions have two scales, and only their separations compare.
    """

    target: CosineDistribution
    others: CosineDistribution
    protocol: Mapping[str, str] = field(default_factory=dict)
    measure: str = "cosine"

    @property
    def gap(self) -> float:
        """The mean cosine of the targets less that of the others."""
        return self.target.mean - self.others.mean

    @property
    def separation(self) -> float:
        """The gap in standard deviations (the root mean square of both); infinite if these are 0.

        Unlike the gap it does not grow where features merely spread out.
        """
        spread = math.sqrt((self.target.std**2 + self.others.std**2) / 2)
        return self.gap / spread if spread else math.copysign(math.inf, self.gap)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; ``counts`` are of 200 bins between ``bounds``."""
        return {
            "measure": self.measure,
            "protocol": dict(self.protocol),
            "gap": self.gap,
            "separation": self.separation,
            "target": self.target.to_dict(),
            "others": self.others.to_dict(),
        }

    def __repr__(self) -> str:
        of = "" if self.measure == "cosine" else f"{self.measure}: "
        return (
            f"Cosines({of}target {self.target.mean:.3f}, others {self.others.mean:.3f}, gap "
            f"{self.gap:.3f}, separation {self.separation:.2f})"
        )


def cosines(
    model: ComposedEncoder,
    dataset: Dataset,
    *,
    num_workers: int | None = None,
    on_error: str = "raise",
) -> Cosines:
    """Compare a dataset's queries with their targets and with all other images of the gallery.

    Every pair counts, none is sampled; memory grows with the galleries alone. A fusion with a
    similarity of its own is compared by it, twice: the first time shows where the bins begin.

    Args:
        model: the encoder and fusion; used in evaluation mode.
        dataset: has known targets; the pairs of all its tasks count alike.
        num_workers: processes that load images; None chooses.
        on_error: ``"raise"`` stops at a missing or broken image, ``"skip"`` leaves out whatever
            needs it.

    Raises:
        ValueError: if a target is unknown, a feature is not finite, or an option is invalid.
        FileNotFoundError: if images are missing.
    """
    require_both(model, dataset)
    tasks = tasks_of(dataset)
    for task in tasks:
        task.require_targets()
    with inference(model):  # galleries and queries of the same weights, next to a training too
        features = TaskFeatures(model, dataset, tasks, num_workers=num_workers, on_error=on_error)
        pairs = []
        for task in features.tasks:
            targets, exclude, _, relevant = features.indices(task)
            query = features.queries(task)
            gallery = features.gallery(task).to(query.dtype)
            # Further right answers are neither targets nor others.
            left_out = [rows for rows in (exclude, relevant) if rows is not None]
            out = torch.cat(left_out, dim=1) if left_out else None
            pairs.append(_Pairs(query, gallery, targets, out, features.similarity))
        return _counted(pairs, features.protocol)


def feature_cosines(
    query: Array,
    gallery: Array,
    targets: Array,
    exclude: Array | None = None,
    *,
    similarity: Similarity | None = None,
) -> Cosines:
    """Compare query features with their targets and with all other features of the gallery.

    Args:
        query: [Q, D]; need not be normalised.
        gallery: [N, D], the same device and dtype.
        targets: int64 [Q], gallery indices.
        exclude: int64 [Q] or [Q, M], gallery indices that do not count; -1 is padding.
        similarity: compares in place of the cosine, as in ``retrieval.search``.

    Raises:
        TypeError: if an argument is no torch tensor.
        ValueError: if features are not finite, tensors do not fit each other, an index is outside
            the gallery, a target is -1, or no image but targets is left to compare with.

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> found = feature_cosines(torch.tensor([[2.0, 0.0]]), gallery, torch.tensor([0]))
        >>> found.target.mean, found.others.mean, found.gap
        (1.0, -0.5, 1.5)
    """
    return _counted([_Pairs(query, gallery, targets, exclude, similarity)], {})


class _Pairs:
    """The pairs of a task that count, of features that are checked."""

    def __init__(
        self,
        query: Array,
        gallery: Array,
        targets: Array,
        exclude: Array | None,
        similarity: Similarity | None,
    ) -> None:
        query, gallery = as_tensor(query), as_tensor(gallery)
        check_search(query, gallery, one_width=similarity is None)
        self._query, self.gallery = widen(query.detach()), widen(gallery.detach())
        self._targets = check_targets(targets, query, gallery, least=0)
        self.similarity = similarity
        # A target does not count among the others either.
        self._out = self._targets.unsqueeze(1)
        if exclude is not None:
            exclude = as_columns(check_indices("exclude", exclude, query, gallery))
            self._out = torch.cat([self._out, exclude], dim=1)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the scores of some queries' targets, and of all other pairs that count."""
        for query, targets, out in zip(
            *(rows.split(_ROWS) for rows in (self._query, self._targets, self._out)), strict=True
        ):
            if self.similarity is None:
                scores = cosine(query, self.gallery)
            else:
                scores = compare_in_tiles(query, self.gallery, self.similarity)
            counted = torch.ones_like(scores, dtype=torch.bool)
            counted[index_pairs(out)] = False
            yield scores.gather(1, targets.unsqueeze(1)).flatten(), scores[counted]


def _counted(tasks: Sequence[_Pairs], protocol: Mapping[str, str]) -> Cosines:
    by_cosine = tasks[0].similarity is None
    bounds = (-1.0, 1.0) if by_cosine else _bounds(tasks)
    blocks = (block for task in tasks for block in task.blocks())
    found = [[_distribution(scores, bounds) for scores in block] for block in blocks]
    target, others = map(_together, zip(*found, strict=True))
    if not others.pairs:
        size = max(len(task.gallery) for task in tasks)
        raise ValueError(f"the gallery of {size} holds nothing but targets of the queries")
    return Cosines(target, others, protocol, "cosine" if by_cosine else "similarity")


def _bounds(tasks: Sequence[_Pairs]) -> tuple[float, float]:
    """Return the least and largest score that counts, or what is around it if all are equal."""
    lowest, highest = zip(
        *(torch.cat(block).aminmax() for task in tasks for block in task.blocks()), strict=True
    )
    low, high = float(min(lowest)), float(max(highest))
    margin = max(1.0, abs(low) / 1000)  # less would be lost in the digits of a large number
    return (low, high) if low < high else (low - margin, high + margin)


def _distribution(values: Tensor, bounds: tuple[float, float]) -> CosineDistribution:
    low, high = bounds
    bins = ((values - low) * (_BINS / (high - low))).long().clamp_(0, _BINS - 1)
    counts = torch.bincount(bins, minlength=_BINS).cpu()
    wide = values.double()
    return CosineDistribution(counts, float(wide.sum()), float(wide.square().sum()), bounds)


def _together(parts: Sequence[CosineDistribution]) -> CosineDistribution:
    """Add up distributions of the same bounds."""
    counts = torch.stack([part.counts for part in parts]).sum(0)
    total, squares = sum(part.total for part in parts), sum(part.squares for part in parts)
    return CosineDistribution(counts, total, squares, parts[0].bounds)

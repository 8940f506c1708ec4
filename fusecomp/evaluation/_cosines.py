import math
from collections.abc import Iterable, Mapping
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
from fusecomp.evaluation._features import TaskFeatures
from fusecomp.evaluation._tasks import tasks_of
from fusecomp.model import ComposedEncoder
from fusecomp.types import Dataset

_BINS = 200  # of the histograms over [-1, 1]
_ROWS = 256  # queries compared at once


@dataclass(frozen=True, slots=True, eq=False)
class CosineDistribution:
    """Distribution of the cosines of some pairs.

    Args:
        counts: int64 [200], the number of pairs in each bin of 0.01 from -1 to 1.
        total: the sum of the cosines.
        squares: the sum of their squares.
    """

    counts: Tensor
    total: float
    squares: float

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
        return {**summary, "counts": self.counts.tolist()}


@dataclass(frozen=True, slots=True, eq=False)
class Cosines:
    """Cosines of queries with their targets, and with the other images of their gallery.

    Args:
        target: cosines of each query and its target.
        others: cosines of each query and every other image that it is ranked among.
        protocol: the dataset's; empty for bare features.
    """

    target: CosineDistribution
    others: CosineDistribution
    protocol: Mapping[str, str] = field(default_factory=dict)

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
        """Return plain values; ``counts`` are of 200 bins from -1 to 1."""
        return {
            "protocol": dict(self.protocol),
            "gap": self.gap,
            "separation": self.separation,
            "target": self.target.to_dict(),
            "others": self.others.to_dict(),
        }

    def __repr__(self) -> str:
        return (
            f"Cosines(target {self.target.mean:.3f}, others {self.others.mean:.3f}, gap "
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

    Every pair counts, none is sampled; memory grows with the gallery alone.

    Args:
        model: the encoder and fusion; used in evaluation mode.
        dataset: has known targets; the pairs of all its tasks count alike.
        num_workers: processes that load images; None chooses.
        on_error: ``"raise"`` stops at a missing or broken image, ``"skip"`` leaves out whatever
            needs it.

    Raises:
        ValueError: if the fusion has a similarity of its own, a target is unknown, a feature is
            not finite, or an option is invalid.
        FileNotFoundError: if images are missing.
    """
    require_both(model, dataset)
    if model.similarity is not None:
        raise ValueError(
            f"{type(model.fusion).__name__} compares by a similarity of its own, whose scores are "
            "no cosines: take search(query, gallery, k, similarity=model.similarity)"
        )
    tasks = tasks_of(dataset)
    for task in tasks:
        task.require_targets()
    parts = []
    with inference(model):  # galleries and queries of the same weights, next to a training too
        features = TaskFeatures(model, dataset, tasks, num_workers=num_workers, on_error=on_error)
        for task in features.tasks:
            targets, exclude, _ = features.indices(task)
            query, gallery = features.queries(task), features.gallery(task)
            parts.append(feature_cosines(query, gallery, targets, exclude))
    return Cosines(
        _together(part.target for part in parts),
        _together(part.others for part in parts),
        features.protocol,
    )


def feature_cosines(
    query: Tensor, gallery: Tensor, targets: Tensor, exclude: Tensor | None = None
) -> Cosines:
    """Compare query features with their targets and with all other features of the gallery.

    Args:
        query: [Q, D]; need not be normalised.
        gallery: [N, D], the same device and dtype.
        targets: int64 [Q], gallery indices.
        exclude: int64 [Q] or [Q, M], gallery indices that do not count; -1 is padding.

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
    check_search(query, gallery)
    query, gallery = query.detach(), gallery.detach()
    targets = check_targets(targets, query, gallery, least=0)
    # A target does not count among the others either.
    out = targets.unsqueeze(1)
    if exclude is not None:
        exclude = as_columns(check_indices("exclude", exclude, query, gallery))
        out = torch.cat([out, exclude], dim=1)
    blocks = []
    for start in range(0, len(query), _ROWS):
        rows = slice(start, start + _ROWS)
        scores = cosine(query[rows], gallery)
        counted = torch.ones_like(scores, dtype=torch.bool)
        counted[index_pairs(out[rows])] = False
        found = scores.gather(1, targets[rows].unsqueeze(1)).flatten()
        blocks.append((_distribution(found), _distribution(scores[counted])))
    target, others = map(_together, zip(*blocks, strict=True))
    if not others.pairs:
        raise ValueError(f"the gallery of {len(gallery)} holds nothing but targets of the queries")
    return Cosines(target, others)


def _distribution(values: Tensor) -> CosineDistribution:
    bins = ((values + 1) * (_BINS / 2)).long().clamp_(0, _BINS - 1)
    counts = torch.bincount(bins, minlength=_BINS).cpu()
    wide = values.double()
    return CosineDistribution(counts, float(wide.sum()), float(wide.square().sum()))


def _together(parts: Iterable[CosineDistribution]) -> CosineDistribution:
    counts, totals, squares = zip(*((p.counts, p.total, p.squares) for p in parts), strict=True)
    return CosineDistribution(torch.stack(counts).sum(0), sum(totals), sum(squares))

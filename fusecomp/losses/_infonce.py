from collections.abc import Collection
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fusecomp._core.checks import flag, number
from fusecomp._core.similarity import unit_rows
from fusecomp._core.tensors import check_alike, check_floating, check_pair, widen
from fusecomp.losses._candidates import CandidateLoss, Compared
from fusecomp.losses._memory import Bank, Queue
from fusecomp.losses._pairs import ABSENT, Ids, Pairs, check_ids
from fusecomp.losses._temperature import LearnableTemperature, check_temperature, scale_of
from fusecomp.losses._tiles import rows_of, slices
from fusecomp.types import Similarity

# The column pass accumulates no gradient, so smaller tiles suffice and cost less to allocate.
_COLUMN_TILE_ROWS = 384


class InfoNCE(CandidateLoss):
    """The batch-based classification loss: each query must find its target among the batch's.

    ``loss = mean_i -log( exp(cos(q_i, t_i) / T) / sum_j exp(cos(q_i, t_j) / T) )``

    One direction, query to target. Computed in float32 at least, also under autocast, and in
    tiles: the matrix of logits is never held. Near convergence value and gradient keep their
    precision.

    Reference:
        Baldrati, Bertini, Uricchio, Del Bimbo, "Conditioned and composed image retrieval
        combining and partially fine-tuning CLIP-based features", CVPR Workshops 2022: "batch
        based classification loss", logits = 100 x cosine. ``symmetric``: Radford et al.,
        "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
        ``label_smoothing``: Szegedy et al., "Rethinking the Inception Architecture for Computer
        Vision", CVPR 2016. ``margin``: Yang et al., "Improving Multilingual Sentence Embedding
        using Bi-directional Dual Encoder with Additive Margin Softmax", IJCAI 2019. ``negatives``:
        Karpukhin et al., "Dense Passage Retrieval for Open-Domain Question Answering", EMNLP 2020.
        ``include_references``: Zhou et al., "MegaPairs: Massive Data Synthesis For Universal
        Multimodal Retrieval", ACL 2025, https://arxiv.org/abs/2412.14475

    Args:
        temperature: T > 0, 0.01 as published; or a ``LearnableTemperature``.
        symmetric: add the other direction, each target among the batch's queries, and halve.
        exclude: candidates that are no negatives of a row: ``"target"`` those with the row's own
            target id, ``"reference"`` those with its reference id, or both names. The published
            loss excludes none.
        memory: further candidates: a ``Bank`` of targets that never change, or a ``Queue`` of the
            last batches' targets.
        label_smoothing: the share of the label that is spread over all candidates.
        margin: is taken from the positive's cosine.
        include_references: the batch's reference images are candidates of every row too, for
            galleries that keep them. One that is a target of the batch counts once, as a target;
            so no row rejects its own target by way of a reference. One that occurs twice counts
            twice. ``exclude`` holds for them as well.

    Shape:
        ``loss(query, target) -> scalar``, in nats; [B, D] each, of one floating dtype and any
        length. ``target_ids``, ``reference_ids``: integers [B].
        ``negatives`` [B, K, D]: further candidates, B * K for every row; ``negative_ids``:
        integers [B, K], which ``exclude`` and a bank need. ``reference`` [B, D]: the features of
        the reference images, which ``include_references`` needs with both ids.
        ``similarity``: a fusion's own, from [Q, E] and [N, D] to [Q, N]; it replaces the cosine,
        and query is then [B, E].

    Raises:
        TypeError: if features are no torch tensors.
        ValueError: if a setting is out of range, a batch has fewer than 2 candidates (one has
            no gradient), ids are missing, or arguments do not fit these shapes.
        RuntimeError: on a second derivative, which it does not have.

    Example:
        >>> import torch
        >>> loss = InfoNCE(temperature=1.0)
        >>> round(loss(torch.eye(2), torch.eye(2)).item(), 4)  # log(1 + exp(-1))
        0.3133
        >>> loss = InfoNCE(temperature=1.0, exclude="target")
        >>> loss(torch.eye(2), torch.eye(2), target_ids=torch.tensor([7, 7])).item()
        0.0
    """

    def __init__(
        self,
        temperature: float | LearnableTemperature = 0.01,
        symmetric: bool = False,
        *,
        exclude: Collection[str] = (),
        memory: Bank | Queue | None = None,
        label_smoothing: float = 0.0,
        margin: float = 0.0,
        include_references: bool = False,
    ) -> None:
        super().__init__(exclude, memory)
        self.symmetric = flag("symmetric", symmetric)
        self.temperature = check_temperature(temperature)
        self.label_smoothing = number("label_smoothing", label_smoothing, 0, 1)
        self.margin = number("margin", margin, 0)
        self.include_references = flag("include_references", include_references)

    @property
    def named_keywords(self) -> tuple[str, ...]:
        """The keywords that a trainer passes; ``reference`` only where it is used."""
        named = ("target_ids", "reference_ids", "similarity")
        return (*named, "reference") if self.include_references else named

    def forward(
        self,
        query: Tensor,
        target: Tensor,
        *,
        target_ids: Ids = None,
        reference_ids: Ids = None,
        negatives: Tensor | None = None,
        negative_ids: Ids = None,
        reference: Tensor | None = None,
        similarity: Similarity | None = None,
    ) -> Tensor:
        """Return the mean over the batch, in nats."""
        batch = self._pair(query, target, target_ids, reference_ids, similarity)
        if negatives is not None or negative_ids is not None:
            negatives, ids = self._check_negatives(target, negatives, negative_ids)
            batch = batch.add(negatives, batch.pairs.append(ids))
        if self.include_references:
            reference, ids = _check_references(target, reference, target_ids, reference_ids)
            batch = batch.add(reference, batch.pairs.append(ids).ban_absent())
        return self._loss(batch)

    def _loss(self, batch: Compared) -> Tensor:
        scale = scale_of(self.temperature)
        margin = self.margin * scale if self.margin > 0 else None
        row_losses = partial(_cross_entropies, smoothing=self.label_smoothing)
        if self.symmetric:
            columns = self._columns(batch, scale, margin)
            row_losses = partial(row_losses, batch=batch.pairs, columns=columns)
        loss = self._mean(row_losses, batch, scale, margin)
        return loss / 2 if self.symmetric else loss

    def _check_negatives(
        self, target: Tensor, negatives: Tensor | None, negative_ids: Ids
    ) -> tuple[Tensor, Tensor]:
        """Return negatives and their ids, [B * K, D] and [B * K]."""
        batch, dim = target.shape
        if negatives is None:
            raise ValueError("negative_ids need negatives")
        check_floating(negatives, "negatives")
        if negatives.ndim != 3 or negatives.shape[::2] != target.shape:
            raise ValueError(
                f"negatives must be [{batch}, K, {dim}], as target is {list(target.shape)}, "
                f"got {list(negatives.shape)}"
            )
        check_alike(target, negatives, ("target", "negatives"))
        if negative_ids is not None:
            ids = check_ids(negative_ids, negatives[..., 0], "negative_ids")
        elif self.exclude or isinstance(self.memory, Bank):
            user = "a bank" if isinstance(self.memory, Bank) else f"exclude={self.exclude}"
            raise ValueError(f"{user} needs negative_ids of the negatives")
        else:
            ids = torch.zeros(negatives.shape[:2], dtype=torch.int64, device=target.device)
        return negatives.flatten(0, 1), ids.flatten()

    @torch.no_grad()
    def _columns(
        self, batch: Compared, scale: float | Tensor, margin: float | Tensor | None
    ) -> "_Columns | None":
        """Add up the other direction in a pass of its own; None where one tile holds all rows."""
        width = len(batch.pairs.columns) + (0 if self.memory is None else len(self.memory.ids))
        if len(slices(batch.query, width)) == 1:
            return None
        with torch.autocast(batch.query.device.type, enabled=False):
            return _add_columns(batch, scale, margin, self.label_smoothing)


def _check_references(
    target: Tensor, reference: Tensor | None, target_ids: Ids, reference_ids: Ids
) -> tuple[Tensor, Tensor]:
    """Return the references and their ids; those of a target of the batch are absent."""
    if reference is None or target_ids is None or reference_ids is None:
        raise ValueError(
            "include_references=True needs reference (the features [B, D] of the batch's reference "
            "images), target_ids and reference_ids"
        )
    check_pair(target, reference, ("target", "reference"))
    known = torch.isin(reference_ids, target_ids)
    return reference, reference_ids.long().masked_fill(known, ABSENT)


class _Columns(NamedTuple):
    """The cross entropy of B columns over all rows, as far as a tile of rows needs it."""

    # [B] each: the logarithm of the sum of the exponentials, and the losses.
    normaliser: Tensor
    losses: Tensor
    # The gradient by the positive's logit, before ``spread``; and what smoothing takes from the
    # gradient by every logit.
    positive_slope: Tensor
    spread: Tensor
    pairs: Pairs

    def gradient(self, logits: Tensor, tile: slice, smoothing: float) -> Tensor:
        """Return the gradient by the logits [T, B] of a tile of rows."""
        gradient = logits[:, : len(self.losses)] - self.normaliser
        left_out = self.pairs.leave_out(gradient, tile)
        gradient.exp_().scatter_(
            1, self.pairs.positives[tile], self.positive_slope[tile].unsqueeze(1)
        )
        if smoothing:
            _spread(gradient, self.spread, left_out)
        return gradient


def _cross_entropies(
    logits: Tensor,
    tile: slice,
    margin: float | Tensor | None,
    *,
    pairs: Pairs,
    smoothing: float,
    batch: Pairs | None = None,
    columns: _Columns | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Compute the cross entropy of each row, for ``tiled``; with ``batch``, of its column too.

    The positive's logit loses the margin. The first B columns are those of the batch's targets;
    where ``columns`` are not given, the tile holds all rows.
    """
    back = None
    if columns is not None:
        back, more = columns.gradient(logits, tile, smoothing), columns.losses[tile]
    elif batch is not None:
        back, more = _all_columns(logits, margin, batch, smoothing)
    positives = rows_of(pairs.positives, tile)
    left_out = pairs.leave_out(logits, tile, margin)
    losses = _cross_entropy(logits, positives, smoothing, left_out)
    slopes = None if margin is None else -logits.gather(1, positives).squeeze(1)
    if batch is not None and back is not None:
        losses = losses + more
        logits[:, : back.shape[1]].add_(back)
        if slopes is not None:
            slopes -= back.gather(1, rows_of(batch.positives, tile)).squeeze(1)
    return losses, slopes


def _all_columns(
    logits: Tensor, margin: float | Tensor | None, batch: Pairs, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return the gradient [B, B] and the losses [B] of the columns, where the tile has all rows."""
    rows = slice(0, logits.shape[0])
    own = logits[:, : rows.stop].clone()
    left_out = batch.leave_out(own, rows, margin)
    back = own.T.contiguous()
    mask = None if left_out is None else left_out.T
    return back.T, _cross_entropy(back, batch.positives, smoothing, mask)


def _add_columns(
    batch: Compared, scale: float | Tensor, margin: float | Tensor | None, smoothing: float
) -> _Columns:
    """Add up the columns over all rows, some of them at a time: one product of [B, D]."""
    query, target, pairs = widen(batch.query), widen(batch.target), batch.pairs
    unit = unit_rows(target)[0] if batch.similarity is None else target
    others = query.new_full((len(query),), -torch.inf)
    positive, sums, counts = (torch.zeros_like(others) for _ in range(3))
    for tile in slices(query, len(unit), _COLUMN_TILE_ROWS):
        if batch.similarity is None:
            logits = unit_rows(query[tile])[0].mul_(scale) @ unit.T
        else:
            logits = batch.similarity(query[tile], target) * scale
        positives = rows_of(pairs.positives, tile)
        left_out = pairs.leave_out(logits, tile, margin)
        positive[tile] = logits.gather(1, positives).squeeze(1)
        if smoothing:
            more = _sums(logits, left_out, dim=0)
            sums, counts = sums + more[0], counts + more[1]
        logits.scatter_(1, positives, -torch.inf)
        others = torch.logaddexp(others, logits.logsumexp(dim=0))
    # Near convergence, 1 - p would cancel.
    losses, share = -F.logsigmoid(positive - others), torch.sigmoid(others - positive)
    spread = smoothing / counts if smoothing else sums
    if smoothing:
        losses += smoothing * (positive - sums / counts)
    normaliser = torch.logaddexp(others, positive)
    return _Columns(normaliser, losses, smoothing - share, spread, pairs)


def _cross_entropy(
    logits: Tensor, positives: Tensor, smoothing: float, left_out: Tensor | None
) -> Tensor:
    positive = logits.gather(1, positives)
    if smoothing:
        sums, counts = _sums(logits, left_out, dim=1)
    highest = logits.amax(dim=1, keepdim=True)
    torch.softmax(logits, dim=1, out=logits)
    top = logits.amax(dim=1, keepdim=True)
    # Near convergence, p - 1 and -log p cancel; the sum of the others' p does not.
    taken = -logits.scatter_(1, positives, 0.0).sum(dim=1, keepdim=True)
    logits.scatter_(1, positives, smoothing + taken if smoothing else taken)
    losses = torch.where(taken > -0.5, -taken.log1p(), highest - positive - top.log())
    if smoothing:
        losses += smoothing * (positive - (sums / counts).unsqueeze(1))
        _spread(logits, (smoothing / counts).unsqueeze(1), left_out)
    return losses.squeeze(1)


def _sums(logits: Tensor, left_out: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
    """Return sum and count of the logits that are not left out."""
    if left_out is None:
        sums = logits.sum(dim)
        return sums, torch.full_like(sums, logits.shape[dim])
    return logits.masked_fill(left_out, 0.0).sum(dim), (~left_out).sum(dim, dtype=logits.dtype)


def _spread(gradient: Tensor, share: Tensor, left_out: Tensor | None) -> None:
    gradient.sub_(share if left_out is None else share.masked_fill(left_out, 0.0))

from collections.abc import Collection

import torch
from torch import Tensor

from fusecomp._core.checks import flag, number
from fusecomp._core.tensors import check_alike, check_floating, check_pair
from fusecomp.losses._bank import Queue, make_bank
from fusecomp.losses._ids import check_ids
from fusecomp.losses._pairs import check_candidates, check_exclude, own_targets
from fusecomp.losses._printed import Printed
from fusecomp.losses._softmax import both_ways, columns_of, one_way
from fusecomp.losses._temperature import LearnableTemperature, check_temperature, scale_of
from fusecomp.losses._tiles import tiled

__all__ = ["InfoNCE"]


class InfoNCE(Printed):
    """The batch-based classification loss: each query must find its target among the batch's.

    ``loss = mean_i -log( exp(cos(q_i, t_i) / T) / sum_j exp(cos(q_i, t_j) / T) )``

    One direction, query to target. It is never computed below float32, whatever autocast says;
    float64 stays float64. The matrix of logits is never held: rows are scored in tiles, whose
    gradients are computed at once. Near convergence, where the loss is tiny, value and gradient
    keep their precision.

    Reference:
        Baldrati, Bertini, Uricchio, Del Bimbo, "Conditioned and composed image retrieval
        combining and partially fine-tuning CLIP-based features", CVPR Workshops 2022: "batch
        based classification loss", logits = 100 x cosine. ``symmetric``: Radford et al.,
        "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
        ``label_smoothing``: Szegedy et al., "Rethinking the Inception Architecture for Computer
        Vision", CVPR 2016. ``margin``: Yang et al., "Improving Multilingual Sentence Embedding
        using Bi-directional Dual Encoder with Additive Margin Softmax", IJCAI 2019. ``negatives``:
        Karpukhin et al., "Dense Passage Retrieval for Open-Domain Question Answering", EMNLP 2020.
        ``bank``: Feng, Zhang, Nie, "Improving Composed Image Retrieval via Contrastive Learning
        with Scaling Positives and Negatives", ACM Multimedia 2024 (SPN4CIR), the second stage,
        https://arxiv.org/abs/2404.11317

    Args:
        temperature: T > 0, 0.01 as published; or a ``LearnableTemperature``.
        symmetric: the mean of this and of the other direction, each target among the queries.
        exclude: which candidates are no negatives of a row: ``"target"`` those with the row's own
            target id, ``"reference"`` those with its reference id, or both names. The published
            loss excludes none.
        bank: features [M, D] that never change, as further candidates, such as those of all
            training targets from a ``CachedEncoder``; a buffer. Where a row's target id is in
            the bank, the bank's row is its positive and stands for that of the batch, which gets
            no gradient: each image counts once. For targets that do not move, so not for
            training the image side.
        bank_ids: M integers, all different: the images' positions in ``dataset.image_ids``.
        queue: the targets of the last batches, as further candidates.
        label_smoothing: the share of the wanted distribution that is spread over all candidates.
        margin: is taken from the positive's cosine.

    Shape:
        ``loss(query, target) -> scalar``; [B, D] each, of one floating dtype; the inputs need not
        be normalised. In nats. ``target_ids``, ``reference_ids``: integers [B].
        ``negatives`` [B, K, D]: K more candidates a row, which every row is compared with;
        ``negative_ids``: integers [B, K], which ``exclude`` and a bank need.

    Raises:
        TypeError: if features are no torch tensors.
        ValueError: if the temperature is not positive and finite, if label_smoothing is not in
            [0, 1) or the margin negative or not finite, if symmetric is neither True nor False; if
            a feature of the bank is NaN or infinite, if bank and bank_ids do not fit each other,
            or a bank meets a queue or ``symmetric`` (it has no other direction); if query and
            target differ in shape or dtype or are not [B, D], if there are fewer than 2 candidates
            (one has no gradient), if ids are missing or not integers of the right shape.
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
        bank: Tensor | None = None,
        bank_ids: Tensor | None = None,
        queue: Queue | None = None,
        label_smoothing: float = 0.0,
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        symmetric = flag("symmetric", symmetric)
        if bank is not None and symmetric:
            raise ValueError("symmetric=True does not go with a bank: its targets have no queries")
        if bank is not None and queue is not None:
            raise ValueError("bank and queue exclude each other: a bank has all targets already")
        if not isinstance(queue, Queue | None):
            raise ValueError(f"queue must be a losses.Queue, got {queue!r}")
        self.temperature = check_temperature(temperature)
        self.symmetric = symmetric
        self.exclude = check_exclude(exclude)
        self.bank = make_bank(bank, bank_ids)
        self.queue = queue
        self.label_smoothing = number("label_smoothing", label_smoothing, 0, 1)
        self.margin = number("margin", margin, 0)

    def forward(
        self,
        query: Tensor,
        target: Tensor,
        *,
        target_ids: Tensor | None = None,
        reference_ids: Tensor | None = None,
        negatives: Tensor | None = None,
        negative_ids: Tensor | None = None,
    ) -> Tensor:
        """The mean over the batch, in nats."""
        check_pair(query, target, ("query", "target"))
        pairs = own_targets(query, self.exclude, target_ids, reference_ids)
        candidates = target
        if negatives is not None or negative_ids is not None:
            negatives, ids = self._checked(query, negatives, negative_ids)
            candidates, pairs = torch.cat((target, negatives)), pairs.append(ids)
        beside = self.queue if self.bank is None else self.bank
        if beside is not None:
            pairs = beside.join(pairs, query, target_ids)
        check_candidates(len(pairs.columns))
        scale = scale_of(self.temperature)
        margin = self.margin * scale if self.margin > 0 else None
        columns: tuple[Tensor, ...] = ()
        if self.symmetric:
            columns = columns_of(query, target, scale, margin, self.label_smoothing, pairs)
        loss = tiled(
            both_ways if self.symmetric else one_way,
            query,
            candidates,
            scale,
            self.label_smoothing,
            *columns,
            *pairs,
            constants=None if beside is None else beside.features,
            offset=margin,
        )
        if self.queue is not None and self.training:
            self.queue.push(target, pairs.columns, loss)
        return loss / 2 if self.symmetric else loss

    def _checked(
        self, query: Tensor, negatives: Tensor | None, negative_ids: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Negatives and their ids, [B * K, D] and [B * K]."""
        batch, dim = query.shape
        if negatives is None:
            raise ValueError("negative_ids need negatives")
        check_floating(negatives, "negatives")
        if negatives.ndim != 3 or negatives.shape[::2] != query.shape:
            raise ValueError(
                f"negatives must be [{batch}, K, {dim}], as query is {list(query.shape)}, "
                f"got {list(negatives.shape)}"
            )
        check_alike(query, negatives, ("query", "negatives"))
        if negative_ids is not None:
            ids = check_ids(negative_ids, negatives[..., 0], "negative_ids")
        elif self.exclude or self.bank is not None:
            what = "a bank" if self.bank is not None else f"exclude={self.exclude}"
            raise ValueError(f"{what} needs negative_ids of the negatives")
        else:
            ids = torch.zeros(negatives.shape[:2], dtype=torch.int64, device=query.device)
        return negatives.flatten(0, 1), ids.flatten()

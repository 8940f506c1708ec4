from functools import partial

import torch
from torch import Tensor, nn

from fusecomp._core.checks import positive
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import check_widths
from fusecomp.losses._memory import FixedFeatures, find, unit_table
from fusecomp.losses._pairs import Ids, check_batch, check_candidates, check_ids
from fusecomp.losses._temperature import LearnableTemperature, check_temperature, scale_of
from fusecomp.losses._tiles import tiled
from fusecomp.types import Similarity

# Two ids below this make one key.
_ID_RANGE = 2**31


class DistillationLoss(nn.Module):
    """Divergence of a teacher's similarities within the batch from the student's.

    With p_ij = softmax_j(cos(q_i, t_j) / T) and P_ij the same of the teacher's features at the
    teacher's temperature, ``loss = mean_i sum_j P_ij log(P_ij / p_ij)``.

    The teacher is another model, such as a larger one: its features are computed before training,
    kept as buffers and looked up by ids; they may have another width. One direction, query to
    target; computed in tiles, in float32 at least.

    Reference:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015,
        https://arxiv.org/abs/1503.02531; over a batch's similarities: Yang et al., "CLIP-KD",
        CVPR 2024, "contrastive relational distillation", https://arxiv.org/abs/2307.12732

    Args:
        queries: [P, E]; the teacher's composed queries.
        query_ids: integers [P, 2]; reference id and target id of each. Rows with equal ids are
            averaged.
        targets: [M, E]; the teacher's features of images.
        target_ids: integers [M].
        temperature: T > 0, or a ``LearnableTemperature``.
        teacher_temperature: the teacher's; higher is softer.

    Shape:
        ``loss(query, target, target_ids=ids, reference_ids=ids) -> scalar``, in nats; [B, D] each,
        B >= 2, of one floating dtype and any length; ids integers [B], positions in
        ``dataset.image_ids``.
        ``similarity``: a fusion's own, from [Q, E] and [N, D] to [Q, N]; it replaces the cosine,
        and query is then [B, E].

    Raises:
        TypeError: if features are no torch tensors.
        ValueError: if a temperature is not positive and finite, the teacher's features are not
            finite (also in a state dict) or do not fit its ids, ids are missing or unknown to the
            teacher (compiled, the loss is then NaN), or arguments do not fit these shapes.
        RuntimeError: on a second derivative, which it does not have.

    Example:
        >>> images, ids = torch.eye(3), torch.arange(3)
        >>> loss = DistillationLoss(images, torch.tensor([[1, 0], [2, 1], [0, 2]]), images, ids)
        >>> loss(images, images, target_ids=ids, reference_ids=torch.tensor([1, 2, 0]))
        tensor(0.)
    """

    def __init__(
        self,
        queries: Tensor,
        query_ids: Tensor,
        targets: Tensor,
        target_ids: Tensor,
        *,
        temperature: float | LearnableTemperature = 0.01,
        teacher_temperature: float = 0.01,
    ) -> None:
        super().__init__()
        unit_queries, unit_targets = unit_table(queries, "queries"), unit_table(targets, "targets")
        check_widths(queries, targets, ("queries", "targets"))
        query_ids = check_ids(query_ids, queries.new_empty(len(queries), 2), "query_ids")
        target_ids = check_ids(target_ids, targets[:, 0], "target_ids")
        self.queries = _Table(unit_queries, query_ids, "query of (reference, target)")
        self.targets = _Table(unit_targets, target_ids.unsqueeze(1), "image")
        self.temperature = check_temperature(temperature)
        self.teacher_temperature = positive("teacher_temperature", teacher_temperature)

    def forward(
        self,
        query: Tensor,
        target: Tensor,
        *,
        target_ids: Ids = None,
        reference_ids: Ids = None,
        similarity: Similarity | None = None,
    ) -> Tensor:
        """Return the mean over the batch, in nats."""
        targets, references = check_batch(query, target, target_ids, reference_ids, similarity)
        check_candidates(len(target))
        if targets is None or references is None:
            raise ValueError(
                "DistillationLoss needs target_ids and reference_ids, to look the teacher up"
            )
        row_losses = partial(
            _divergence,
            teacher_queries=self.queries(references, targets) / self.teacher_temperature,
            teacher_targets=self.targets(targets),
        )
        scale = scale_of(self.temperature)
        return tiled(row_losses, query, target, scale, similarity=similarity)

    def extra_repr(self) -> str:
        """Show the temperatures that are fixed."""
        learns = isinstance(self.temperature, nn.Module)
        temperature = "" if learns else f"temperature={self.temperature}, "
        return f"{temperature}teacher_temperature={self.teacher_temperature}"


class _Table(FixedFeatures):
    """Unit features, looked up by one id or by two."""

    keys: Tensor

    def __init__(self, unit: Tensor, ids: Tensor, kind: str) -> None:
        if ids.min() < 0 or ids.max() >= _ID_RANGE:
            raise ValueError(f"ids must be in [0, 2^31), got {ids.min()} to {ids.max()}")
        keys, row = _key(*ids.unbind(dim=1)).unique(return_inverse=True)
        total = unit.new_zeros(len(keys), unit.shape[1]).index_add_(0, row, unit)
        super().__init__(normalize(total))
        self.register_buffer("keys", keys)
        self.kind = kind

    def forward(self, *ids: Tensor) -> Tensor:
        positions, known = find(self.keys, _key(*ids))
        # A compiled graph cannot raise on values; there, what is missing becomes NaN.
        if not torch.compiler.is_compiling() and not known.all():
            missing = torch.stack(ids, dim=1)[~known].squeeze(1).tolist()
            raise ValueError(f"the teacher has no {self.kind} with the ids {missing[:5]}")
        return torch.where(known.unsqueeze(1), self.features[positions], torch.nan)


def _key(first: Tensor, second: Tensor | None = None) -> Tensor:
    return first if second is None else first * _ID_RANGE + second


def _divergence(
    logits: Tensor, tile: slice, offset: None, *, teacher_queries: Tensor, teacher_targets: Tensor
) -> tuple[Tensor, None]:
    teacher = (teacher_queries[tile] @ teacher_targets.T).to(logits.dtype).log_softmax(dim=1)
    student = logits.log_softmax(dim=1)
    share = teacher.exp()
    # Rounding may take the divergence of equals below zero.
    losses = (teacher.sub_(student).mul_(share)).sum(dim=1).clamp_min(0)
    torch.sub(student.exp_(), share, out=logits)
    return losses, None

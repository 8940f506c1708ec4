import torch
from torch import Tensor, nn

from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import widen
from fusecomp.losses._pairs import Ids, check_batch


class CosineAlignmentLoss(nn.Module):
    """Distance in direction between each query and its target; nothing is pushed away.

    ``loss = mean_i (1 - cos(q_i, t_i)) = mean_i |q_i / |q_i| - t_i / |t_i||^2 / 2``

    The second form is computed, in float32 at least, as it keeps its precision near 0. Where both
    sides learn, combine it with a contrastive loss (``CombinedLoss``): alone it would collapse.
    It compares directions, so it takes no fusion with a similarity of its own.

    Reference:
        Baldrati, Agnolucci, Bertini, Del Bimbo, "Zero-Shot Composed Image Retrieval with Textual
        Inversion", ICCV 2023 (SEARLE), the cosine loss of its textual inversion,
        https://arxiv.org/abs/2303.15247

    Shape:
        ``loss(query, target) -> scalar``; [B, D] each, of one floating dtype and any length; B may
        be 1. ``target_ids``, ``reference_ids``: integers [B], unused.

    Raises:
        ValueError: if query, target or ids do not fit these shapes.

    Example:
        >>> loss = CosineAlignmentLoss()
        >>> round(loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])).item(), 4)
        0.2929
    """

    def forward(
        self, query: Tensor, target: Tensor, *, target_ids: Ids = None, reference_ids: Ids = None
    ) -> Tensor:
        """Return the mean over the batch, between 0 and 2."""
        check_batch(query, target, target_ids, reference_ids)
        with torch.autocast(query.device.type, enabled=False):
            difference = normalize(widen(query)) - normalize(widen(target))
            return difference.square().sum(dim=1).mean() / 2

import math
from collections.abc import Mapping

from torch import Tensor, nn

from fusecomp.identity import describe
from fusecomp.modules import accepted_keywords
from fusecomp.protocols import BATCH_IDS, Loss

__all__ = ["WeightedSum"]


class WeightedSum(nn.Module):
    """Several losses at once: ``loss = sum_k weight_k loss_k``.

    Each loss gets of the ids what it accepts, so plain functions of query and target do too.

    Args:
        losses: name -> (weight, loss). Modules among them keep their parameters and buffers.

    Shape:
        ``loss(query, target) -> scalar``; as the losses want it. ``target_ids``,
        ``reference_ids``: integers [B].

    Raises:
        ValueError: without a loss, if a name cannot be one or a weight is not finite, if a loss
            does not return a scalar; else what the losses raise.

    Example:
        >>> import torch
        >>> from fusecomp.losses import CosineAlignment, InfoNCE
        >>> loss = WeightedSum({"find": (1.0, InfoNCE(1.0)), "align": (0.5, CosineAlignment())})
        >>> round(loss(torch.eye(2), torch.eye(2)).item(), 4)
        0.3133
    """

    def __init__(self, losses: Mapping[str, tuple[float, Loss]]) -> None:
        super().__init__()
        if not isinstance(losses, Mapping):
            raise ValueError(f"losses must map names to (weight, loss), got {losses!r:.80}")
        if not losses:
            raise ValueError("losses must name at least one loss")
        self.weights = {name: weight for name, (weight, _) in losses.items()}
        self.losses = {name: loss for name, (_, loss) in losses.items()}
        self.keywords = {n: accepted_keywords(loss, BATCH_IDS) for n, loss in self.losses.items()}
        for name, (weight, loss) in losses.items():
            if not name.isidentifier() or hasattr(self, name):
                raise ValueError(f"a loss cannot be named {name!r}: take another identifier")
            if not math.isfinite(weight):
                raise ValueError(f"the weight of {name!r} must be finite, got {weight}")
            if isinstance(loss, nn.Module):
                self.add_module(name, loss)

    def forward(
        self,
        query: Tensor,
        target: Tensor,
        *,
        target_ids: Tensor | None = None,
        reference_ids: Tensor | None = None,
    ) -> Tensor:
        """The weighted sum."""
        ids = {"target_ids": target_ids, "reference_ids": reference_ids}
        values = []
        for name, loss in self.losses.items():
            value = loss(query, target, **{key: ids[key] for key in self.keywords[name]})
            if value.ndim != 0:
                raise ValueError(f"the loss {name!r} must return a scalar, got {list(value.shape)}")
            values.append(self.weights[name] * value)
        return sum(values[1:], start=values[0])

    def extra_repr(self) -> str:
        """The weights, and the losses that are no modules."""
        functions = {n: f for n, f in self.losses.items() if not isinstance(f, nn.Module)}
        lines = [", ".join(f"{name}: {weight}" for name, weight in self.weights.items())]
        lines += [f"({name}): {describe(function)}" for name, function in functions.items()]
        return "\n".join(lines)

from collections.abc import Mapping

from torch import Tensor, nn

from fusecomp._core.checks import number, shown
from fusecomp._core.identity import describe
from fusecomp._core.keywords import require_known, taken_keywords
from fusecomp.losses._pairs import Ids
from fusecomp.types import LOSS_KEYWORDS, Loss, Similarity


class CombinedLoss(nn.Module):
    """Weighted sum of losses: ``loss = sum_k weight_k loss_k``.

    Args:
        losses: name -> (weight, loss), at least one. A loss may be a plain function of query and
            target; it gets the keywords that it names.

    Shape:
        ``loss(query, target) -> scalar``; [B, D] each. ``target_ids``, ``reference_ids``:
        integers [B]; ``reference`` [B, D] and ``similarity`` go to the losses that name them.

    Raises:
        ValueError: if a name is no identifier, a weight is not finite, a loss cannot be called,
            needs an unknown keyword or returns no scalar tensor; also what the losses raise.

    Example:
        >>> import torch
        >>> from fusecomp.losses import CosineAlignmentLoss, InfoNCE
        >>> parts = {"find": (1.0, InfoNCE(1.0)), "align": (0.5, CosineAlignmentLoss())}
        >>> loss = CombinedLoss(parts)
        >>> round(loss(torch.eye(2), torch.eye(2)).item(), 4)
        0.3133
    """

    def __init__(self, losses: Mapping[str, tuple[float, Loss]]) -> None:
        super().__init__()
        if not isinstance(losses, Mapping) or not losses:
            raise ValueError(
                f"losses must map at least one name to (weight, loss), got {shown(losses)}"
            )
        self.weights: dict[str, float] = {}
        self.losses: dict[str, Loss] = {}
        self.keywords: dict[str, tuple[str, ...]] = {}
        for name, pair in losses.items():
            if not isinstance(name, str) or not name.isidentifier() or name in dir(self):
                raise ValueError(f"a loss cannot be named {name!r}: take another identifier")
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ValueError(f"{name!r} must be a pair (weight, loss), got {shown(pair)}")
            weight, loss = pair
            if isinstance(loss, type) or not callable(loss):
                raise ValueError(
                    f"the loss {name!r} must be a module or function (an instance, no class), got "
                    f"{shown(loss)}"
                )
            require_known(f"loss {name!r}", loss, LOSS_KEYWORDS)
            self.weights[name] = number(f"the weight of {name!r}", weight)
            self.losses[name] = loss
            self.keywords[name] = taken_keywords(loss, LOSS_KEYWORDS)
            if isinstance(loss, nn.Module):
                self.add_module(name, loss)

    @property
    def named_keywords(self) -> set[str]:
        """The keywords that the losses name; ``similarity`` only if all of them do."""
        named = set().union(*self.keywords.values())
        all_compare = all("similarity" in keywords for keywords in self.keywords.values())
        return named if all_compare else named - {"similarity"}

    def forward(
        self,
        query: Tensor,
        target: Tensor,
        *,
        target_ids: Ids = None,
        reference_ids: Ids = None,
        reference: Tensor | None = None,
        similarity: Similarity | None = None,
    ) -> Tensor:
        """Return the weighted sum."""
        keywords = target_ids, reference_ids, reference, similarity
        given = dict(zip(LOSS_KEYWORDS, keywords, strict=True))
        values = []
        for name, loss in self.losses.items():
            value = loss(query, target, **{key: given[key] for key in self.keywords[name]})
            if not isinstance(value, Tensor) or value.ndim != 0:
                got = list(value.shape) if isinstance(value, Tensor) else shown(value)
                raise ValueError(f"the loss {name!r} must return a scalar, got {got}")
            values.append(self.weights[name] * value)
        return sum(values[1:], start=values[0])

    def extra_repr(self) -> str:
        """Show the weights, and the losses that are no modules."""
        functions = {n: f for n, f in self.losses.items() if not isinstance(f, nn.Module)}
        lines = [", ".join(f"{name}: {weight}" for name, weight in self.weights.items())]
        lines += [f"({name}): {describe(function)}" for name, function in functions.items()]
        return "\n".join(lines)

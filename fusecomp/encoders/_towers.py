from collections.abc import Callable

from torch import nn

__all__ = ["learnable"]


def learnable(
    module: nn.Module, side_of: Callable[[str], str | None]
) -> dict[str, tuple[str, ...]]:
    """For each side the names of its parameters that may learn.

    What a user has frozen, as LoRA freezes the weights below it, stays frozen; a side that is
    frozen as a whole (as weights often come) may learn as a whole.

    Args:
        module: the encoder.
        side_of: name of a parameter -> its side, or None for what no feature depends on, such as
            CLIP's ``logit_scale``.
    """
    names: dict[str, list[str]] = {}
    unfrozen: dict[str, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        side = side_of(name)
        if side is not None:
            names.setdefault(side, []).append(name)
            if parameter.requires_grad:
                unfrozen.setdefault(side, []).append(name)
    return {side: tuple(unfrozen.get(side, all_of)) for side, all_of in names.items()}

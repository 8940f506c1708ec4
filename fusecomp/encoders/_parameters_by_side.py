from collections.abc import Callable

from torch import nn


def parameters_by_side(
    module: nn.Module, side_of: Callable[[str], str | None]
) -> dict[str, tuple[str, ...]]:
    """Return for each side the names of its parameters, whether they are frozen or not.

    Args:
        module: the encoder.
        side_of: name of a parameter -> its side, or None for what no feature depends on, such as
            CLIP's ``logit_scale``.
    """
    names: dict[str, list[str]] = {}
    for name, _ in module.named_parameters(remove_duplicate=False):
        side = side_of(name)
        if side is not None:
            names.setdefault(side, []).append(name)
    return {side: tuple(of_side) for side, of_side in names.items()}

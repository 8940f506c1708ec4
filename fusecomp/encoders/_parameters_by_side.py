from collections.abc import Callable

from torch import nn


def parameters_by_side(
    module: nn.Module, side_of: Callable[[str], str | None]
) -> dict[str, tuple[str, ...]]:
    """Return the names of each side's parameters, frozen or not; a side of None counts for none."""
    names: dict[str, list[str]] = {}
    for name, _ in module.named_parameters(remove_duplicate=False):
        side = side_of(name)
        if side is not None:
            names.setdefault(side, []).append(name)
    return {side: tuple(of_side) for side, of_side in names.items()}

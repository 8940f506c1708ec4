import copy
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from fusecomp._core.checks import as_share, require

Module = TypeVar("Module", bound=nn.Module)


def interpolate(before: Module, after: Module, weight: float) -> Module:
    """Return a copy of ``after`` with weights between those of two modules.

    ``(1 - weight) * before + weight * after`` of each parameter and buffer, computed in float32 at
    least; 0 gives the numbers of ``before`` and 1 those of ``after``, to the bit. Integers, such as
    counts, are those of ``after``, but for 0. Tuning makes an encoder better at one dataset and
    worse elsewhere; a weight that validation queries choose keeps part of both.

    Reference:
        Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022 (WiSE-FT),
        https://arxiv.org/abs/2109.01903

    Args:
        before: such as a copy of an encoder, made before the training that tunes it in place.
        after: the same module after it. Neither is changed.
        weight: the share of ``after``, in [0, 1].

    Raises:
        TypeError: if one is no module.
        ValueError: if the weight is no number in [0, 1], or parameters or buffers differ in name,
            shape, dtype or device.

    Example:
        >>> plain, tuned = (torch.nn.Linear(2, 1) for _ in range(2))
        >>> half = interpolate(plain, tuned, 0.5)
        >>> torch.allclose(half.bias, (plain.bias + tuned.bias) / 2)
        True
    """
    require("before", before, "named_parameters", "a module")
    require("after", after, "named_parameters", "a module")
    weight = as_share("weight", weight)
    start, end = _tensors(before), _tensors(after)
    _check_alike(start, end)
    between = copy.deepcopy(after)
    with torch.no_grad():
        for name, tensor in _tensors(between).items():
            tensor.copy_(_between(start[name], end[name], weight))
    return between


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(chain(module.named_parameters(), module.named_buffers()))


def _check_alike(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    if alone := sorted(before.keys() ^ after.keys()):
        owner = "before" if alone[0] in before else "after"
        raise ValueError(
            f"only {owner} has {alone[0]!r} ({len(alone)} such): give one module twice"
        )
    for name, one in before.items():
        kinds = [(list(t.shape), t.dtype, t.device) for t in (one, after[name])]
        if kinds[0] != kinds[1]:
            shown = " and ".join(" ".join(map(str, kind)) for kind in kinds)
            raise ValueError(f"{name!r} differs between before and after: {shown}")


def _between(before: Tensor, after: Tensor, weight: float) -> Tensor:
    if weight in (0, 1) or not (after.is_floating_point() or after.is_complex()):
        return after if weight else before
    wide = torch.promote_types(after.dtype, torch.float32)
    mixed = torch.lerp(before.to(wide), after.to(wide), weight).to(after.dtype)
    # A mask's infinities have no difference.
    return torch.where(before == after, after, mixed)

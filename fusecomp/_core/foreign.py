"""Attributes that an object of the user's or of another library may have."""

from typing import Any, TypeVar, overload

from torch import nn

_T = TypeVar("_T")


@overload
def optional(part: object, name: str) -> Any: ...
@overload
def optional(part: object, name: str, default: _T) -> _T: ...
def optional(part: object, name: str, default: object = None) -> object:
    """Return an attribute of a part, or the default where it has none."""
    return getattr(part, name, default)


def inside(part: _T) -> _T:
    """Return what torch.compile, DataParallel or DDP have wrapped; any other part as it is."""
    wrapped: _T | None = None
    if isinstance(part, nn.DataParallel | nn.parallel.DistributedDataParallel):
        wrapped = part.module
    elif isinstance(part, nn.Module):
        wrapped = part._modules.get("_orig_mod")  # type: ignore[assignment]
    return part if wrapped is None else inside(wrapped)

"""Attributes that an object of the user's or of another library may have."""

from typing import Any, TypeVar, overload

_T = TypeVar("_T")


@overload
def optional(part: object, name: str) -> Any: ...
@overload
def optional(part: object, name: str, default: _T) -> _T: ...
def optional(part: object, name: str, default: object = None) -> object:
    """Return an attribute of a part, or the default where it has none."""
    return getattr(part, name, default)

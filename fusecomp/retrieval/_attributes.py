"""Attributes of images: plain values, and which images have those that are wanted."""

from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from torch import Tensor

from fusecomp._core.checks import require, require_kind, shown, strings
from fusecomp._core.task import repeated

# What JSON keeps as it is.
Value = str | int | float | bool | None


def check_images(
    image_ids: Sequence[str], attributes: Mapping[str, Sequence[Value]] | None
) -> tuple[list[str], dict[str, list[Value]]]:
    """Return ids and attributes of images; ValueError if they do not fit, or an id repeats."""
    names = strings("image_ids", image_ids)
    for name in repeated(names):
        raise ValueError(f"the image {name!r} occurs twice")
    return names, plain_columns(attributes, len(names))


def plain_columns(
    attributes: Mapping[str, Sequence[Value]] | None, rows: int
) -> dict[str, list[Value]]:
    """Return attributes by name; ValueError unless each has a plain value for each row."""
    if attributes is None:  # not `or`: a DataFrame is neither true nor false
        return {}
    require("attributes", attributes, "items", "a mapping from names to values")
    named = [(str(name), listed(values)) for name, values in attributes.items()]
    for name in repeated([name for name, _ in named]):
        raise ValueError(f"the attribute {name!r} occurs twice")
    columns = dict(named)
    for name, column in columns.items():
        if len(column) != rows:
            raise ValueError(f"the attribute {name!r} has {len(column)} values for {rows} images")
        for value in (value for value in column if not _is_plain(value)):
            raise ValueError(
                f"the attribute {name!r} must hold plain values, got {shown(value)}; a missing "
                "value is None, in a DataFrame by frame.astype(object).where(frame.notna(), None)"
            )
    return columns


def check_where(
    attributes: Mapping[str, Sequence[Value]], where: Mapping[str, Value | Collection[Value]]
) -> dict[str, list[Value]]:
    """Return the values that are wanted; ValueError if there is no such attribute or kind."""
    require_kind("where", where, Mapping, "a mapping from attributes to values")
    wanted = {name: listed(values) for name, values in where.items()}
    for name, values in wanted.items():
        if name not in attributes:
            valid = ", ".join(map(repr, attributes)) or "none"
            raise ValueError(f"unknown attribute {name!r}; this gallery has {valid}")
        _require_kinds(name, attributes[name], values)
    return wanted


def _is_plain(value: object) -> bool:
    """Return whether JSON keeps a value as it is; it has no NaN, which equals nothing either."""
    return isinstance(value, Value) and (not isinstance(value, float) or isfinite(value))


def listed(values: Any) -> list[Value]:
    """Return the values of a collection, or the one value, as Python's own."""
    if isinstance(values, np.ndarray | np.generic | Tensor):
        values = values.tolist()
    if not isinstance(values, Collection) or isinstance(values, str | bytes | Mapping):
        values = [values]
    return [value.tolist() if isinstance(value, np.generic) else value for value in values]


def _require_kinds(name: str, column: Sequence[Value], wanted: Sequence[Value]) -> None:
    """Raise ValueError on a value of a kind that no image has."""
    types = {type(value) for value in column}
    kinds = {_kind(of) for of in types}
    for value in wanted:
        if value is not None and _kind(type(value)) not in kinds:
            held = " and ".join(sorted(of.__name__ for of in types))
            given = f"the {type(value).__name__} {shown(value)}"
            raise ValueError(f"the attribute {name!r} holds values of {held}, got {given}")


def _kind(of: type) -> object:
    """Return the kind whose values may be equal: numbers of any type, and True is none."""
    return next((kind for kind in (bool, int | float, str) if issubclass(of, kind)), of)

"""Arguments that are no tensors: a check for each kind, which names the argument and its value.

Each returns the value as Python's own kind, so that a NumPy number prints and saves as any other.
"""

import math
import os
from collections.abc import Collection, Iterable, KeysView, Mapping, Set
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from types import UnionType
from typing import Any, TypeGuard
from unicodedata import category

import numpy as np
from torch import Tensor

from fusecomp._core.foreign import optional

# The largest number that torch takes for a size or a position.
_LARGEST = 2**63 - 1


def whole_number(name: str, value: object, low: int, high: float = _LARGEST) -> int:
    """Return the value as an int; ValueError unless it is whole and from ``low`` to ``high``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, got {shown(value)}")
    if int(value) > high:
        raise ValueError(f"{name} must be at most {high}, got {shown(value)}")
    return int(value)


def number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return the value as a float; ValueError unless it is a finite number in [low, high)."""
    found = _as_float(name, value)
    if not (math.isfinite(found) and low <= found < high):
        expected = f"in [{low}, {high})"
        if high == math.inf:
            known = {-math.inf: "finite", 0: "finite and not negative"}
            expected = known.get(low, f"finite and at least {low}")
        raise ValueError(f"{name} must be {expected}, got {shown(value)}")
    return found


def as_share(name: str, value: object) -> float:
    """Return the value as a float; ValueError unless it is a number in [0, 1]."""
    found = number(name, value)
    if not 0 <= found <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {shown(value)}")
    return found


def positive(name: str, value: object) -> float:
    """Return the value as a float; ValueError unless it is positive and finite."""
    found = _as_float(name, value)
    if not 0 < found < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {shown(value)}")
    return found


def _as_float(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        kind = type(value).__name__
        raise ValueError(f"{name} must be an int or a float, got the {kind} {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def flag(name: str, value: object) -> bool:
    """Return the value as a bool; ValueError on anything else: a text would count as True."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def as_path(name: str, value: object) -> Path:
    """Return the value as a path; TypeError on another kind, ValueError on an impossible name."""
    path = fspath(value) if isinstance(value, PathLike) else value
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a path, got {shown(value)}")
    if "\0" in path:
        raise ValueError(f"{name} must be a path, which holds no NUL, got {shown(value)}")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        expected = f"a path, which {error.encoding} can write"
        raise ValueError(f"{name} must be {expected}, got {shown(value)}") from error
    return Path(path)


def as_text(name: str, value: object) -> str:
    """Return the value as a plain string, also of an enum; TypeError unless it is a string."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {shown(value)}")
    return str.__str__(value)


def has_half_character(text: str) -> bool:
    """Return whether a text holds half of a character, as a torn emoji; no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def is_blank(text: str) -> bool:
    """Return whether a reader sees nothing of a text: blanks, or characters without width."""
    if text.isascii():
        return not text.strip()
    return all(c.isspace() or category(c) == "Cf" for c in text)


def are_strings(values: Iterable[str]) -> bool:
    """Return whether all values are strings; quicker than a look at each."""
    try:
        "".join(values)
    except TypeError:
        return False
    return True


def strings(name: str, values: object) -> list[str]:
    """Return the strings as a list; ValueError on anything else, a single string included."""
    listed = ordered(name, values, "strings")
    # The usual case, in half of the time that the loop takes.
    if {*map(type, listed)} <= {str}:
        return listed
    for position, value in enumerate(listed):
        if not isinstance(value, str):
            raise ValueError(
                f"{name} must be a list of strings, got {type(values).__name__} of "
                f"{type(value).__name__}: {name}[{position}] is {shown(value)}"
            )
    return listed


def require_strings(name: str, values: object) -> None:
    """Raise ValueError on what cannot be sliced, or a list of anything but strings; quick."""
    if isinstance(values, str | bytes | Mapping) or optional(values, "__getitem__") is None:
        raise ValueError(f"{name} must be a list of strings, got {shown(values)}")
    if isinstance(values, list | tuple) and not are_strings(values):
        strings(name, values)


def ordered(name: str, values: object, content: str) -> list[Any]:
    """Return the values as a list; ValueError on what has no order or can be read only once."""
    if not can_be_listed(values):
        kind = "the string" if isinstance(values, str) else f"the {type(values).__name__}"
        raise ValueError(f"{name} must be a list of {content}, got {kind} {shown(values)}")
    return list(values.tolist() if isinstance(values, np.ndarray) else values)


def list_of(name: str, values: object, kind: type, content: str) -> list[Any]:
    """Return the values as a list; ValueError unless all are of a kind, which ``content`` says."""
    listed = ordered(name, values, content)
    for value in listed:
        if isinstance(value, type) or not isinstance(value, kind):
            raise ValueError(f"{name} must be a list of {content}, got {shown(value)} in it")
    return listed


def can_be_listed(values: object) -> TypeGuard[Collection[Any]]:
    """Return whether values have an order, as a dict's keys do, and can be read twice."""
    if isinstance(values, str | bytes | Mapping | Tensor) or optional(values, "ndim", 1) != 1:
        return False
    unordered = isinstance(values, Set) and not isinstance(values, KeysView)
    return isinstance(values, Collection) and not unordered


def shown(value: object) -> str:
    """Return the beginning of the value's ``repr``."""
    try:
        text = repr(value)
    except Exception:  # a foreign object's own, or that of an int of thousands of digits
        return f"some {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def require_kind(name: str, value: object, kind: type | UnionType, expected: str) -> None:
    """Raise TypeError unless an argument is of a kind, which ``expected`` says in words."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {expected}, got {shown(value)}")


def require(name: str, value: object, member: str, kind: str, order: str = "") -> None:
    """Raise TypeError unless an argument has a member; ``order`` is that of the arguments."""
    no_class(name, value)
    if not hasattr(value, member):
        hint = f"; the order is {order}" if order else ""
        raise TypeError(f"{name} must be {kind}, got {type(value).__name__}{hint}")


def no_class(name: str, value: object) -> None:
    """Raise TypeError on a class, which can be called as its instances can."""
    if isinstance(value, type):
        raise TypeError(f"{name} is the class {value.__name__}: pass an instance of it")


def require_both(model: object, dataset: object) -> None:
    """Raise TypeError unless these are a model and a dataset."""
    require("model", model, "compose", "a ComposedEncoder", "model, dataset")
    require("dataset", dataset, "tasks", "a Dataset", "model, dataset")


def require_choice(name: str, value: object, valid: Collection[str]) -> str:
    """Return the value as a plain string; ValueError that lists the valid ones on another."""
    # An array would compare element by element, a list cannot be looked up in a mapping.
    if not isinstance(value, str) or value not in valid:
        raise ValueError(f"unknown {name} {shown(value)}; valid: {', '.join(map(repr, valid))}")
    return as_text(name, value)

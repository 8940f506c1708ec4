"""Functions by their code and by the values that they use, for ``identity``."""

import re
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

import numpy as np
import torch
from torch import Tensor

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# Values that ``repr`` shows in full, and others that cannot change.
PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.Size, np.dtype, range, PurePath)
FIXED = (*PLAIN, type(None), tuple, frozenset, Enum)


def used_values(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Yield what a function uses, each with a label: defaults, closed-over values, globals."""
    yield "", function.__defaults__
    yield "", sorted((function.__kwdefaults__ or {}).items())
    yield "", {name: v for name, v in vars(function).items() if not name.startswith("__")}
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # of a variable that has no value yet
            yield "", cell.cell_contents
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        if _counts(name, value := function.__globals__[name], function):
            yield f"{name} ", value


def _counts(name: str, value: object, function: FunctionType) -> bool:
    """Return whether a global is a constant, function or transform of a function's own file."""
    if isinstance(value, FunctionType):
        return value.__module__ == function.__module__
    if isinstance(value, type | ModuleType | BuiltinFunctionType):
        return False
    # A list with another name than a constant's may be a note of what was done.
    constant = name.isupper() and isinstance(value, list | dict | set | np.ndarray | Tensor)
    return isinstance(value, FIXED) or constant or callable(value)


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names, *(name for part in inner for name in _names(part))}


def code_text(value: object) -> str:
    """Describe code, or a constant in it: sets in one order, no places, no addresses."""
    if isinstance(value, CodeType):
        constants = [code_text(constant) for constant in value.co_consts]
        arguments = value.co_varnames[: value.co_argcount + value.co_kwonlyargcount]
        return f"code {value.co_code.hex()} {constants} {value.co_names} {arguments}"
    if isinstance(value, tuple):
        return str([code_text(item) for item in value])
    if isinstance(value, frozenset):
        return str(sorted(code_text(item) for item in value))
    return ADDRESS.sub("", repr(value))

"""Values, objects and functions in words: equal for what does the same, in every process."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusecomp._core.foreign import optional
from fusecomp.distributed import plain_class, whole

# Their objects may keep notes that change with use; what matters is public there.
_LIBRARIES = (
    *("fusecomp", "torch", "torchvision", "timm", "open_clip", "clip"),
    *("transformers", "tokenizers", "sentence_transformers", "peft"),
)
_PLACE = re.compile(r"\bname_or_path='[^']*',? ?")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_NAMELESS = " object at 0x"
_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.Size, np.dtype, range, PurePath)
_FIXED = (*_PLAIN, type(None), tuple, frozenset, Enum)
_BRACKETS: dict[type, tuple[str, str]] = {tuple: ("(", ")"), list: ("[", "]"), dict: ("{", "}")}
# A library's own memory of what it has seen.
_NOTES = frozenset({"cache"})
# Ids of the objects that a value lies in, so that what holds itself comes to an end.
Above = tuple[int, ...]
_ModuleText = Callable[[nn.Module, Above], str]


def is_foreign(value: object) -> bool:
    """Return whether a value's class is the user's own, and not one of the libraries known here."""
    return plain_class(value).__module__.partition(".")[0] not in _LIBRARIES


def told(value: object, containers: bool = False) -> bool:
    """Return whether a value is plain and fixed; ``containers`` adds list, dict, set, tensor."""
    return isinstance(value, (*_FIXED, list, dict, set, Tensor) if containers else _FIXED)


def hashed(text: str) -> str:
    """SHA-256 of a text, whatever is in it."""
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def attributes(value: object) -> dict[str, object]:
    """Return the attributes of an object, slots included, and plain ones of a user's class."""
    found: dict[str, object] = {}
    for kind in reversed(type(value).__mro__):
        if kind.__module__.partition(".")[0] not in (*_LIBRARIES, "builtins"):
            named = vars(kind).items()
            found |= {n: v for n, v in named if told(v) and not n.startswith("__")}
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with suppress(AttributeError):  # of a slot that holds nothing
                found[name] = getattr(value, name)
    return found | optional(value, "__dict__", {})


def describe_inside(value: object, above: Above, module_text: _ModuleText) -> str | None:
    """Describe a value that lies in those with the ids ``above``; None if it tells nothing.

    Args:
        value: anything.
        above: ids of what it lies in.
        module_text: describes a module.
    """
    return _Words(module_text).text(value, above)


class _Words:
    def __init__(self, module_text: _ModuleText) -> None:
        self._module_text = module_text

    def text(self, value: object, above: Above) -> str | None:
        if value is None or isinstance(value, _PLAIN):
            return repr(value)
        if id(value) in above:
            return "itself"
        above = (*above, id(value))
        if isinstance(value, type):
            return value.__qualname__
        if isinstance(value, BuiltinFunctionType):
            return self._builtin(value, above)
        if isinstance(value, Enum):
            return str(value)
        if isinstance(value, Tensor | np.ndarray):
            return _array_text(value)
        if isinstance(value, nn.Module):
            return f"{plain_class(value).__qualname__} {self._module_text(value, above)}"
        if isinstance(value, tuple | list | set | frozenset | Mapping):
            return self._container(value, above)
        if isinstance(value, partial):
            parts = [value.func, *value.args, value.keywords]
            return f"functools.partial({', '.join(self.told(part, above) for part in parts)})"
        if isinstance(value, MethodType):
            return f"{self.told(value.__func__, above)} of {self.told(value.__self__, above)}"
        if isinstance(value, FunctionType):
            return self._function(value, above)
        return self._object(value, above)

    def told(self, value: object, above: Above) -> str:
        """Describe a value inside of another, by its class alone if it tells no more."""
        return self.text(value, above) or plain_class(value).__qualname__

    def _builtin(self, function: Any, above: Above) -> str:
        owner = function.__self__
        if owner is None or isinstance(owner, type | ModuleType):
            return f"{function.__module__}.{function.__qualname__}"
        return f"{function.__name__} of {self.told(owner, above)}"

    def _container(self, value: Collection[object], above: Above) -> str:
        kind = type(value)
        if isinstance(value, Mapping):
            if kind is dict and all(
                type(k) is str and type(v) in (str, int) for k, v in value.items()
            ):
                return repr(value)  # a vocabulary, quickly
            items = [f"{self.told(k, above)}: {self.told(v, above)}" for k, v in value.items()]
        else:
            items = [self.told(item, above) for item in value]
        if isinstance(value, set | frozenset):
            items.sort()
        first, last = _BRACKETS.get(kind, (f"{kind.__name__}(", ")"))
        comma = "," if kind is tuple and len(items) == 1 else ""
        return f"{first}{', '.join(items)}{comma}{last}"

    def _object(self, value: object, above: Above) -> str | None:
        """Describe an object by its fields, its ``repr`` or its attributes; None without any."""
        name = plain_class(value).__qualname__
        kind = type(value)
        if callable(optional(value, "get_vocab")):
            return f"{name} {_tokenizer_text(value)}"
        if dataclasses.is_dataclass(value) and optional(kind, "__dataclass_params__").repr:
            fields = [field.name for field in dataclasses.fields(value) if field.repr]
            shown = (f"{f}={self.told(optional(value, f), above)}" for f in fields)
            return f"{name}({', '.join(shown)})"
        own = attributes(value)
        if kind.__repr__ is object.__repr__ or isinstance(value, SimpleNamespace):
            if not is_foreign(value):
                own = {n: v for n, v in own.items() if not n.startswith("_") and n not in _NOTES}
            return f"{name} {self._container(own, above)}" if own else None
        text = repr(value)
        if _NAMELESS in text:
            inner = optional(value, "__wrapped__")  # as of what functools.cache returns
            return None if inner is None else self.text(inner, above)
        # A repr names functions at most, and shortens arrays.
        more = [self.told(item, above) for item in own.values() if _is_cut_short(item)]
        return " ".join([_ADDRESS.sub("", _PLACE.sub("", text)), *more])

    def _function(self, function: FunctionType, above: Above) -> str:
        function = optional(function, "_torchdynamo_orig_callable", function)
        keywords = sorted((function.__kwdefaults__ or {}).items())
        own = {name: v for name, v in vars(function).items() if not name.startswith("__")}
        parts = [_code_text(function.__code__)]
        parts += [self.told(item, above) for item in (function.__defaults__, keywords, own)]
        parts += [self.told(cell, above) for cell in _closed_over(function)]
        parts += [f"{name} {self.told(used, above)}" for name, used in _used(function)]
        return f"{function.__qualname__} {hashed(' '.join(parts))}"


def _array_text(value: Tensor | NDArray[Any]) -> str:
    if isinstance(value, Tensor):
        flat = whole(value).detach().cpu().contiguous().flatten()
        content, kind = flat.view(torch.uint8).numpy().tobytes(), "tensor"
    elif value.dtype.hasobject:
        return _ADDRESS.sub("", repr(value.tolist()))
    else:
        content, kind = np.ascontiguousarray(value).tobytes(), "array"
    return f"{kind} {value.dtype} {list(value.shape)} {hashlib.sha256(content).hexdigest()}"


def _tokenizer_text(tokenizer: Any) -> str:
    """Describe a tokenizer by its vocabulary and rules; the padding of its last call is none."""
    backend = optional(tokenizer, "backend_tokenizer") or tokenizer
    names = "model_max_length", "padding_side", "truncation_side"
    limits = [optional(tokenizer, name) for name in names]
    if callable(optional(backend, "to_str")):
        rules = json.loads(backend.to_str())
        rules.pop("truncation", None), rules.pop("padding", None)
        return f"{limits} {hashed(json.dumps(rules, sort_keys=True))}"
    return f"{limits} {hashed(repr(sorted(map(str, _vocabulary(tokenizer.get_vocab())))))}"


def _vocabulary(words: Iterable[object]) -> Iterable[object]:
    return words.items() if isinstance(words, Mapping) else enumerate(words)


def _is_cut_short(value: object) -> bool:
    return isinstance(value, FunctionType | Tensor | np.ndarray) or (
        isinstance(value, list | tuple) and any(map(callable, value))
    )


def _closed_over(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # of a variable that has no value yet
            yield cell.cell_contents


def _used(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Yield the constants, functions and transforms of its own file that a function uses."""
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        if _counts(name, value := function.__globals__[name], function):
            yield name, value


def _counts(name: str, value: object, function: FunctionType) -> bool:
    if isinstance(value, FunctionType):
        return value.__module__ == function.__module__
    if isinstance(value, type | ModuleType | BuiltinFunctionType):
        return False
    # A list with another name than a constant's may be a note of what was done.
    constant = name.isupper() and isinstance(value, list | dict | set | np.ndarray | Tensor)
    return isinstance(value, _FIXED) or constant or callable(value)


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names, *(name for part in inner for name in _names(part))}


def _code_text(value: object) -> str:
    """Describe code, or a constant in it: sets in one order, no places, no addresses."""
    if isinstance(value, CodeType):
        constants = [_code_text(constant) for constant in value.co_consts]
        arguments = value.co_varnames[: value.co_argcount + value.co_kwonlyargcount]
        return f"code {value.co_code.hex()} {constants} {value.co_names} {arguments}"
    if isinstance(value, tuple):
        return str([_code_text(item) for item in value])
    if isinstance(value, frozenset):
        return str(sorted(_code_text(item) for item in value))
    return _ADDRESS.sub("", repr(value))

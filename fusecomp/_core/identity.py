"""One rule for "is this the same?", for caches, workdirs and saved models.

These count: classes; settings, which are the plain values among any module's attributes and the
``repr`` of other objects; structure; names, shapes and values of tensors; functions by their code,
their defaults, the values they close over, and the constants and functions of their own file that
they use.

These do not: training mode, hooks, devices, gradient checkpointing, the place that a model was
loaded from, the code of classes.
"""

import dataclasses
import hashlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from itertools import chain
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusecomp.distributed import plain_class, whole

__all__ = ["class_name", "describe", "differences", "fingerprint", "hash_tensors", "settings"]

# Their private attributes are caches and notes of their own; what matters is public there.
_LIBRARIES = (
    *("fusecomp", "torch", "torchvision", "timm", "open_clip", "clip"),
    *("transformers", "sentence_transformers", "peft"),
)
# Attributes that change no feature.
_PASSING = frozenset(vars(nn.Module())) | {
    "device",
    "grad_checkpointing",
    "gradient_checkpointing",
    "name_or_path",
    # Of a module that FSDP2 has sharded.
    "_fsdp_use_orig_params",
    "_is_fsdp_managed_module",
}
_PLACE = re.compile(r"\bname_or_path='[^']*',? ?")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_NAMELESS = " object at 0x"
_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.Size, np.dtype, range, PurePath)
_FIXED = (*_PLAIN, type(None), tuple, frozenset, Enum)
_BRACKETS: dict[type, tuple[str, str]] = {tuple: ("(", ")"), list: ("[", "]"), dict: ("{", "}")}
# Ids of the objects that a value lies in, so that what holds itself comes to an end.
_Above = tuple[int, ...]
# Longer texts are told by their beginning and a hash.
_SHORT = 120


def class_name(part: Any) -> str:
    """The name of an object's class, also where torch.compile or FSDP2 stands in front of it."""
    return plain_class(getattr(part, "_orig_mod", part)).__qualname__


def fingerprint(part: nn.Module) -> str:
    """Name an encoder's state for a cache: a hash of its weights and one of its settings.

    Equal on any device.
    """
    return _module_text(part, ())


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash names, dtypes, shapes and values: equal for equal tensors on any device."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        data = whole(tensor).detach().cpu().contiguous().flatten()
        digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def settings(part: Any, name: str) -> dict[str, str]:
    """Describe a part by the place of each of its settings, such as ``fusion.dropout.p``.

    Args:
        part: a module, of which each module inside has entries of its own, or any other callable.
        name: what the part is called.

    Raises:
        ValueError: if an object of the user's own does not tell its settings.
    """
    if isinstance(part, nn.Module):
        return _module_settings(part, name, ())
    return {name: _short(describe(part))}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Say of each entry that differs what it was and what it is now."""
    for name in {**new, **old}:
        if name not in new:
            yield f"{name} was {old[name]!r} and is gone"
        elif name not in old:
            yield f"{name} was not there and is now {new[name]!r}"
        elif old[name] != new[name]:
            yield f"{name} was {old[name]!r} and is now {new[name]!r}"


def describe(part: Any) -> str:
    """Say what a value, function or object is, in the same words in every process.

    Raises:
        ValueError: if it tells nothing but its address.
    """
    return _described(part, ())


def _described(part: Any, above: _Above) -> str:
    text = _text(part, above)
    if text is None:
        raise ValueError(
            f"{part!r} does not tell its settings, so that nothing can be named by it: give it a "
            "__repr__ (a dataclass has one), or give a cache a key of your own"
        )
    return text


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}... {_hash(text)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def _of_library(value: Any) -> bool:
    return plain_class(value).__module__.partition(".")[0] in _LIBRARIES


# Modules


def _module_text(module: nn.Module, above: _Above) -> str:
    tensors = chain(module.named_parameters(), module.named_buffers())
    told = _hash(repr(sorted(_module_settings(module, "", above).items())))
    return f"weights {hash_tensors(tensors)}; settings {told}"


def _module_settings(part: nn.Module, name: str, above: _Above) -> dict[str, str]:
    found = {}
    for place, module in part.named_modules(prefix=name):
        if "_orig_mod" in module._modules:  # what torch.compile puts around a module
            continue
        place = place.replace("._orig_mod", "").replace("_orig_mod", "")
        extra = "" if _of_library(module) else module.extra_repr()
        found[place] = f"{class_name(module)}({extra})" if extra else class_name(module)
        for attribute, value in vars(module).items():
            text = _attribute(module, attribute, value, (*above, id(part), id(module)))
            if text is not None:
                found[f"{place}.{attribute}"] = _short(text)
    return found


def _attribute(module: nn.Module, name: str, value: Any, above: _Above) -> str | None:
    """Describe an attribute of a module; None if it counts for nothing."""
    if name in _PASSING or isinstance(value, nn.Module) or _is_own_method(module, name, value):
        return None
    if _of_library(module):
        known = isinstance(value, (*_FIXED, list, dict, set, Tensor)) or callable(value)
        if name.startswith("_") or not known:
            return None
    if callable(value) and not _of_library(value):
        return _described(value, above)  # what tells nothing may do anything
    return _text(value, above)


def _is_own_method(module: nn.Module, name: str, value: Any) -> bool:
    """Whether this is a method of the module's class, as FSDP2 puts one around it."""
    method = inspect.unwrap(value) if isinstance(value, MethodType) else None
    return method is not None and method.__func__ is getattr(plain_class(module), name, None)


# Values


def _text(value: Any, above: _Above) -> str | None:
    """Describe a value that lies in those with the ids ``above``; None if it tells nothing."""
    if value is None or isinstance(value, _PLAIN):
        return repr(value)
    if id(value) in above:
        return "itself"
    above = (*above, id(value))
    if isinstance(value, type | BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, Tensor):
        return f"tensor {hash_tensors([('', value)])}"
    if isinstance(value, np.ndarray):
        return _array_text(value)
    if isinstance(value, nn.Module):
        return f"{class_name(value)} {_module_text(value, above)}"
    if isinstance(value, tuple | list | set | frozenset | Mapping):
        return _container_text(value, above)
    if isinstance(value, partial):
        parts = [value.func, *value.args, value.keywords]
        return f"functools.partial({', '.join(_told(part, above) for part in parts)})"
    if isinstance(value, MethodType):
        return f"{_told(value.__func__, above)} of {_told(value.__self__, above)}"
    if isinstance(value, FunctionType):
        return _function_text(value, above)
    return _object_text(value, above)


def _told(value: Any, above: _Above) -> str:
    """Describe a value inside of another, by its class alone if it tells no more."""
    return _text(value, above) or class_name(value)


def _array_text(array: NDArray[Any]) -> str:
    if array.dtype.hasobject:
        return _ADDRESS.sub("", repr(array.tolist()))
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"array {array.dtype} {list(array.shape)} {digest}"


def _container_text(value: Any, above: _Above) -> str:
    if isinstance(value, Mapping):
        items = [f"{_told(key, above)}: {_told(item, above)}" for key, item in value.items()]
    else:
        items = [_told(item, above) for item in value]
    if isinstance(value, set | frozenset):
        items.sort()
    kind = type(value)
    first, last = _BRACKETS.get(kind, (f"{kind.__name__}(", ")"))
    comma = "," if kind is tuple and len(items) == 1 else ""
    return f"{first}{', '.join(items)}{comma}{last}"


def _object_text(value: Any, above: _Above) -> str | None:
    """Describe an object by its fields, its ``repr`` or its attributes; None if it has none."""
    name = class_name(value)
    kind: Any = type(value)
    if dataclasses.is_dataclass(value) and kind.__dataclass_params__.repr:
        fields = [field.name for field in dataclasses.fields(value) if field.repr]
        return f"{name}({', '.join(f'{f}={_told(getattr(value, f), above)}' for f in fields)})"
    own = getattr(value, "__dict__", {})
    if kind.__repr__ is object.__repr__:
        # A library's object may keep notes that change with use.
        return f"{name} {_container_text(own, above)}" if own and not _of_library(value) else None
    text = repr(value)
    if _NAMELESS in text:
        inner = getattr(value, "__wrapped__", None)  # as of what functools.cache returns
        return None if inner is None else _text(inner, above)
    # A repr names functions at most; their code counts.
    code = [_told(item, above) for item in own.values() if _holds_functions(item)]
    return " ".join([_ADDRESS.sub("", _PLACE.sub("", text)), *code])


def _holds_functions(value: Any) -> bool:
    return isinstance(value, FunctionType) or (
        isinstance(value, list | tuple) and any(map(callable, value))
    )


# Functions


def _function_text(function: FunctionType, above: _Above) -> str:
    function = getattr(function, "_torchdynamo_orig_callable", function)  # behind torch.compile
    keywords = sorted((function.__kwdefaults__ or {}).items())
    parts = [_code_text(function.__code__), _told((function.__defaults__, keywords), above)]
    parts += [_told(cell, above) for cell in _closed_over(function)]
    parts += [f"{name} {_told(used, above)}" for name, used in _used(function)]
    return f"{function.__module__}.{function.__qualname__} {_hash(' '.join(parts))}"


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # of a variable that has no value yet
            yield cell.cell_contents


def _used(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The constants and functions of its own file that a function uses, by name."""
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        value = function.__globals__[name]
        near = isinstance(value, FunctionType) and value.__module__ == function.__module__
        if near or isinstance(value, _FIXED):
            yield name, value


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names, *(name for part in inner for name in _names(part))}


def _code_text(value: Any) -> str:
    """Describe code, or a constant in it: sets in one order, no places, no addresses."""
    if isinstance(value, CodeType):
        constants = [_code_text(constant) for constant in value.co_consts]
        return f"code {value.co_code.hex()} {constants} {value.co_names}"
    if isinstance(value, tuple):
        return str([_code_text(item) for item in value])
    if isinstance(value, frozenset):
        return str(sorted(_code_text(item) for item in value))
    return _ADDRESS.sub("", repr(value))

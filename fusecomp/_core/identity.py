"""One rule for "is this the same?", for caches, workdirs and saved models.

Values, objects and functions are put into words, equal for what does the same, in every process.

These count: classes; settings, which are the plain values among any module's attributes and what
other objects tell; structure; names, shapes and values of tensors; functions by their code, their
defaults, the values they close over, and the constants, functions and transforms of their own file
that they use.

These do not: training mode, hooks, devices, gradient checkpointing, the place that a model was
loaded from, the code of classes, and private attributes that hold anything but a plain value, where
a module may keep what changes with use.
"""

import dataclasses
import hashlib
import inspect
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusecomp._core.foreign import optional
from fusecomp._core.functions import ADDRESS, FIXED, PLAIN, code_text, used_values
from fusecomp._core.tensors import raw_bytes
from fusecomp.distributed import plain_class, whole

# Their objects may keep notes that change with use; what matters is public there.
_LIBRARIES = (
    *("fusecomp", "torch", "torchvision", "timm", "open_clip", "clip"),
    *("transformers", "tokenizers", "sentence_transformers", "peft"),
)
# Attributes that change no feature.
_PASSING = frozenset(vars(nn.Module())) | {
    *("device", "grad_checkpointing", "gradient_checkpointing", "name_or_path"),
    *("_fsdp_use_orig_params", "_is_fsdp_managed_module"),  # of a module that FSDP2 has sharded
}
# Private attributes of a library that change what it computes.
_TELLING = frozenset({"_disable_adapters"})
# A library's own memory of what it has seen.
_NOTES = frozenset({"cache"})
_LOADED_FROM = re.compile(r"\bname_or_path='[^']*',? ?")
_NAMELESS = " object at 0x"
_BRACKETS: dict[type, tuple[str, str]] = {tuple: ("(", ")"), list: ("[", "]"), dict: ("{", "}")}
# Longer texts are told by their beginning and a hash.
_SHORT = 120
# Ids of the objects that a value lies in, so that what holds itself comes to an end.
_Above = tuple[int, ...]


def without_compile(part: object) -> object:
    """Return the module that torch.compile has wrapped; any other part as it is."""
    return optional(part, "_orig_mod", part)


def plain_name(name: str) -> str:
    """Return the name of a weight or module without what torch.compile puts into it."""
    return name.replace("_orig_mod.", "")


def class_name(part: object) -> str:
    """Return the name of an object's class, also where torch.compile or FSDP2 has wrapped it."""
    return plain_class(without_compile(part)).__qualname__


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash names, dtypes, shapes and values: equal for equal tensors on any device."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{plain_name(name)} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(raw_bytes(whole(tensor)).data)
    return digest.hexdigest()


def settings(part: object, name: str) -> dict[str, str]:
    """Describe each setting of a part by its place, such as ``fusion.dropout.p``.

    ValueError if an object of the user's own does not tell its settings.
    """
    if isinstance(part, nn.Module):
        return _module_settings(part, name, ())
    return {name: _short(describe(part))}


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    """Say of each entry that differs what it was and what it is now."""
    for name in {**new, **old}:
        if name not in new:
            yield f"{name} was {old[name]!r} and is gone"
        elif name not in old:
            yield f"{name} was not there and is now {new[name]!r}"
        elif old[name] != new[name]:
            yield f"{name} was {old[name]!r} and is now {new[name]!r}"


def describe(part: object, above: _Above = ()) -> str:
    """Describe a value, function or object; ValueError if it tells nothing but its address."""
    text = _text(part, above)
    if text is None:
        raise ValueError(
            f"{part!r} does not tell its settings, so that nothing can be named by it: give it a "
            "__repr__ (a dataclass has one), or give a cache a key of your own"
        )
    return text


def _named(value: object, above: _Above) -> str:
    """Describe a value inside of another, by its class alone if it tells no more."""
    return _text(value, above) or plain_class(value).__qualname__


def _text(value: object, above: _Above) -> str | None:
    """Describe a value; None if it tells nothing."""
    if value is None or isinstance(value, PLAIN):
        return repr(value)
    if id(value) in above:
        return "itself"
    above = (*above, id(value))
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, BuiltinFunctionType):
        owner: object = value.__self__
        if owner is None or isinstance(owner, type | ModuleType):
            return f"{value.__module__}.{value.__qualname__}"
        return f"{value.__name__} of {_named(owner, above)}"
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, Tensor | np.ndarray):
        return _array_text(value)
    if isinstance(value, nn.Module):
        return f"{plain_class(value).__qualname__} {fingerprint(value, above)}"
    if isinstance(value, tuple | list | set | frozenset | Mapping):
        return _container_text(value, above)
    if isinstance(value, partial):
        parts = [value.func, *value.args, value.keywords]
        return f"functools.partial({', '.join(_named(part, above) for part in parts)})"
    if isinstance(value, MethodType):
        return f"{_named(value.__func__, above)} of {_named(value.__self__, above)}"
    if isinstance(value, FunctionType):
        value = optional(value, "_torchdynamo_orig_callable", value)
        used = [label + _named(part, above) for label, part in used_values(value)]
        return f"{value.__qualname__} {hash_text(' '.join([code_text(value.__code__), *used]))}"
    return _object_text(value, above)


def _container_text(value: Collection[object], above: _Above) -> str:
    kind = type(value)
    if isinstance(value, Mapping):
        if kind is dict and all(type(k) is str and type(v) in (str, int) for k, v in value.items()):
            return repr(value)  # a vocabulary, quickly
        items = [f"{_named(k, above)}: {_named(v, above)}" for k, v in value.items()]
    else:
        items = [_named(item, above) for item in value]
    if isinstance(value, set | frozenset):
        items.sort()
    first, last = _BRACKETS.get(kind, (f"{kind.__name__}(", ")"))
    comma = "," if kind is tuple and len(items) == 1 else ""
    return f"{first}{', '.join(items)}{comma}{last}"


def _object_text(value: object, above: _Above) -> str | None:
    """Describe an object by its fields, its ``repr`` or its attributes; None without any."""
    kind, name = type(value), plain_class(value).__qualname__
    if callable(optional(value, "get_vocab")):
        return f"{name} {_tokenizer_text(value)}"
    if dataclasses.is_dataclass(value) and optional(kind, "__dataclass_params__").repr:
        fields = [field.name for field in dataclasses.fields(value) if field.repr]
        shown = (f"{f}={_named(optional(value, f), above)}" for f in fields)
        return f"{name}({', '.join(shown)})"
    values = _attributes(value)
    if kind.__repr__ is object.__repr__ or isinstance(value, SimpleNamespace):
        if not _is_users(value):
            values = {n: v for n, v in values.items() if not n.startswith("_") and n not in _NOTES}
        return f"{name} {_container_text(values, above)}" if values else None
    text = repr(value)
    if _NAMELESS in text:
        inner = optional(value, "__wrapped__")  # as of what functools.cache returns
        return None if inner is None else _text(inner, above)
    # A repr names functions at most, and shortens arrays.
    more = [_named(item, above) for item in values.values() if _is_cut_short(item)]
    return " ".join([ADDRESS.sub("", _LOADED_FROM.sub("", text)), *more])


def _is_cut_short(value: object) -> bool:
    return isinstance(value, FunctionType | Tensor | np.ndarray) or (
        isinstance(value, list | tuple) and any(map(callable, value))
    )


def _is_users(value: object) -> bool:
    """Return whether a value's class is the user's own, and not one of the libraries known here."""
    return plain_class(value).__module__.partition(".")[0] not in _LIBRARIES


def _attributes(value: object) -> dict[str, object]:
    """Return the attributes of an object, slots included, and plain ones of a user's class."""
    found: dict[str, object] = {}
    for kind in reversed(type(value).__mro__):
        if kind.__module__.partition(".")[0] not in (*_LIBRARIES, "builtins"):
            named = vars(kind).items()
            found |= {n: v for n, v in named if isinstance(v, FIXED) and not n.startswith("__")}
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with suppress(AttributeError):  # of a slot that holds nothing
                found[name] = getattr(value, name)
    return found | optional(value, "__dict__", {})


def _array_text(value: Tensor | NDArray[Any]) -> str:
    if isinstance(value, Tensor):
        content, kind = raw_bytes(whole(value)).tobytes(), "tensor"
    elif value.dtype.hasobject:
        return ADDRESS.sub("", repr(value.tolist()))
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
        return f"{limits} {hash_text(json.dumps(rules, sort_keys=True))}"
    words: Any = tokenizer.get_vocab()
    pairs = words.items() if isinstance(words, Mapping) else enumerate(words)
    return f"{limits} {hash_text(repr(sorted(map(str, pairs))))}"


def fingerprint(module: nn.Module, above: _Above = ()) -> str:
    """Name a module's state by a hash of its weights and one of its settings, on any device."""
    found = hash_text(repr(sorted(_module_settings(module, "", above).items())))
    text = hash_tensors({**dict(module.named_parameters()), **dict(module.named_buffers())}.items())
    packed = {n: v for n, v in module.state_dict().items() if not isinstance(v, Tensor)}
    if packed:  # the weights of quantised modules are no tensors
        content = io.BytesIO()
        torch.save(packed, content)
        text = f"{text} {hashlib.sha256(content.getvalue()).hexdigest()}"
    return f"weights {text}; settings {found}"


def _module_settings(part: nn.Module, name: str, above: _Above) -> dict[str, str]:
    found = {}
    for path, module in part.named_modules(prefix=name):
        if "_orig_mod" in module._modules:  # what torch.compile puts around a module
            continue
        path = path.replace("._orig_mod", "").replace("_orig_mod", "")
        extra = module.extra_repr() if _is_users(module) else ""
        found[path] = f"{class_name(module)}({extra})" if extra else class_name(module)
        if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
            found[f"{path}.code"] = _short(str(module.code))
        for attribute, value in _attributes(module).items():
            text = _attribute_text(module, attribute, value, (*above, id(part), id(module)))
            if text is not None:
                found[f"{path}.{attribute}"] = _short(text)
    return found


def _attribute_text(module: nn.Module, name: str, value: object, above: _Above) -> str | None:
    """Describe an attribute of a module; None if it counts for nothing."""
    if name in _PASSING or isinstance(value, nn.Module):
        return None
    if isinstance(value, MethodType) and (value := _without_fsdp(value)) is None:
        return None
    private = name.startswith("_") and name not in _TELLING
    if private:
        fixed = value is not None and isinstance(value, FIXED)
        counts = _is_users(module) and (fixed or callable(value))
    else:
        plain = isinstance(value, (*FIXED, list, dict, set, Tensor)) or callable(value)
        counts = plain or _is_users(module) or callable(optional(value, "get_vocab"))
    if not counts:
        return None
    if not private and callable(value) and _is_users(value):
        return describe(value, above)  # what tells nothing may do anything
    return _text(value, above)


def _without_fsdp(method: MethodType) -> MethodType | None:
    """Return the method that FSDP2 has put itself around; None if the class has it anyway."""
    if "fsdp" not in method.__func__.__code__.co_filename:
        return method
    inner = inspect.unwrap(method)
    function = optional(inner, "__func__", inner)
    original = optional(plain_class(method.__self__), method.__func__.__name__)
    return None if function is original else inner


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text in hex; what UTF-8 has no bytes for is spelled out."""
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}... {hash_text(text)}"

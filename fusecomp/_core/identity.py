"""One rule for "is this the same?", for caches, workdirs and saved models.

These count: classes; settings, which are the plain values among any module's attributes and what
other objects tell; structure; names, shapes and values of tensors; functions by their code, their
defaults, the values they close over, and the constants, functions and transforms of their own file
that they use.

These do not: training mode, hooks, devices, gradient checkpointing, the place that a model was
loaded from, the code of classes, and private attributes that hold anything but a plain value, where
a module may keep what changes with use.
"""

import hashlib
import inspect
import io
from collections.abc import Iterable, Iterator, Mapping
from types import MethodType

import torch
from torch import Tensor, nn

from fusecomp._core.descriptions import Above, attributes, describe_inside, hashed, is_foreign, told
from fusecomp._core.foreign import optional
from fusecomp.distributed import plain_class, whole

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
# Private attributes of a library that change what it computes.
_TELLING = frozenset({"_disable_adapters"})
# Longer texts are told by their beginning and a hash.
_SHORT = 120


def without_compile(part: object) -> object:
    """Return the module that torch.compile has wrapped; any other part as it is."""
    return optional(part, "_orig_mod", part)


def plain_name(name: str) -> str:
    """Return the name of a weight or module without what torch.compile puts into it."""
    return name.replace("_orig_mod.", "")


def class_name(part: object) -> str:
    """Return the name of an object's class, also where torch.compile or FSDP2 has wrapped it."""
    return plain_class(without_compile(part)).__qualname__


def fingerprint(part: nn.Module) -> str:
    """Name an encoder's state for a cache: a hash of its weights and one of its settings.

    Equal on any device.
    """
    return _module_text(part, ())


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash names, dtypes, shapes and values: equal for equal tensors on any device."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{plain_name(name)} {tensor.dtype} {list(tensor.shape)}".encode())
        data = whole(tensor).detach().cpu().contiguous().flatten()
        digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def settings(part: object, name: str) -> dict[str, str]:
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


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    """Say of each entry that differs what it was and what it is now."""
    for name in {**new, **old}:
        if name not in new:
            yield f"{name} was {old[name]!r} and is gone"
        elif name not in old:
            yield f"{name} was not there and is now {new[name]!r}"
        elif old[name] != new[name]:
            yield f"{name} was {old[name]!r} and is now {new[name]!r}"


def describe(part: object) -> str:
    """Say what a value, function or object is, in the same words in every process.

    Raises:
        ValueError: if it tells nothing but its address.
    """
    return _described(part, ())


def _described(part: object, above: Above) -> str:
    text = _inside(part, above)
    if text is None:
        raise ValueError(
            f"{part!r} does not tell its settings, so that nothing can be named by it: give it a "
            "__repr__ (a dataclass has one), or give a cache a key of your own"
        )
    return text


def _inside(value: object, above: Above) -> str | None:
    return describe_inside(value, above, _module_text)


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}... {hashed(text)}"


def _module_text(module: nn.Module, above: Above) -> str:
    found = hashed(repr(sorted(_module_settings(module, "", above).items())))
    return f"weights {_hash_state(module)}; settings {found}"


def _hash_state(module: nn.Module) -> str:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    packed = {n: v for n, v in module.state_dict().items() if not isinstance(v, Tensor)}
    text = hash_tensors(tensors.items())
    if not packed:
        return text
    # The weights of quantised modules are no tensors.
    content = io.BytesIO()
    torch.save(packed, content)
    return f"{text} {hashlib.sha256(content.getvalue()).hexdigest()}"


def _module_settings(part: nn.Module, name: str, above: Above) -> dict[str, str]:
    found = {}
    for place, module in part.named_modules(prefix=name):
        if "_orig_mod" in module._modules:  # what torch.compile puts around a module
            continue
        place = place.replace("._orig_mod", "").replace("_orig_mod", "")
        extra = module.extra_repr() if is_foreign(module) else ""
        found[place] = f"{class_name(module)}({extra})" if extra else class_name(module)
        if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
            found[f"{place}.code"] = _short(str(module.code))
        for attribute, value in attributes(module).items():
            text = _attribute(module, attribute, value, (*above, id(part), id(module)))
            if text is not None:
                found[f"{place}.{attribute}"] = _short(text)
    return found


def _attribute(module: nn.Module, name: str, value: object, above: Above) -> str | None:
    """Describe an attribute of a module; None if it counts for nothing."""
    if name in _PASSING or isinstance(value, nn.Module):
        return None
    if isinstance(value, MethodType) and (value := _without_fsdp(value)) is None:
        return None
    if name.startswith("_") and name not in _TELLING:
        plain = value is not None and told(value)
        return _inside(value, above) if is_foreign(module) and (plain or callable(value)) else None
    if not is_foreign(module) and not (
        told(value, containers=True) or callable(value) or _holds_tokens(value)
    ):
        return None
    if callable(value) and is_foreign(value):
        return _described(value, above)  # what tells nothing may do anything
    return _inside(value, above)


def _without_fsdp(method: MethodType) -> MethodType | None:
    """Return the method that FSDP2 has put itself around; None if the class has it anyway."""
    if "fsdp" not in method.__func__.__code__.co_filename:
        return method
    inner = inspect.unwrap(method)
    function = optional(inner, "__func__", inner)
    own = optional(plain_class(method.__self__), method.__func__.__name__)
    return None if function is own else inner


def _holds_tokens(value: object) -> bool:
    return callable(optional(value, "get_vocab"))

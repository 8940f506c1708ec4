"""Weights from a file, checked against those that they replace before anything is copied."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fusecomp.distributed import local, whole

# What DataParallel, DistributedDataParallel and torch.compile put before every name.
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")


def without_wrappers(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights by their own names, where every name begins with that of a wrapper."""
    if not all(isinstance(name, str) and _WRAPPERS.match(name) for name in weights):
        return dict(weights)
    return {_WRAPPERS.sub("", name): value for name, value in weights.items()}


def count_parts(names: Iterable[str], beginning: str) -> int:
    """Return how many different parts, up to a dot, follow the beginning of some names."""
    behind = (name.removeprefix(beginning) for name in names if name.startswith(beginning))
    return len({name.partition(".")[0] for name in behind})


def check_weights(where: str, saved: Mapping[str, Any], own: Mapping[str, Tensor]) -> None:
    """Refuse weights of a file that a module with the weights ``own`` cannot take as they are.

    ValueError, which begins with ``where``, names the weight. NaN and infinity pass where the
    module's own values are the same, as those of masks; ``own`` may be on the meta device.
    """
    if missing := sorted(map(str, own.keys() ^ saved.keys())):
        raise ValueError(f"{where}: only one of the two has {missing[0]!r} ({len(missing)} such)")
    for name, tensor in own.items():
        if problem := _misfit(saved[name], tensor):
            raise ValueError(f"{where}: {name!r} {problem}")
    for pair in shared_bytes(saved):
        if pair not in shared_bytes({name: local(own[name]) for name in pair}):
            raise ValueError(
                f"{where}: {' and '.join(map(repr, pair))} are the same bytes in the file alone"
            )


def kind_of(value: object) -> str:
    """Name the kind of a value in words, for errors about what is no dense tensor."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.is_quantized:
        return "a quantised tensor"
    if value.is_meta:
        return "a tensor without values"
    return f"a tensor of layout {value.layout}" if value.layout is not torch.strided else "dense"


def _misfit(value: Any, own: Tensor) -> str | None:
    if (kind := kind_of(value)) != "dense":
        return f"is {kind} in the file, expected a dense tensor {list(own.shape)}"
    if value.shape != own.shape:
        return f"is {list(value.shape)} in the file, expected {list(own.shape)}"
    both_floating = value.is_floating_point() and own.is_floating_point()
    if value.dtype != own.dtype and not both_floating:
        return f"is {value.dtype} in the file, expected {own.dtype}"
    if value.nbytes > value.untyped_storage().nbytes():
        return f"{list(value.shape)} has fewer bytes in the file than it needs"
    if not own.is_meta and local(own).nbytes > local(own).untyped_storage().nbytes():
        return "cannot be copied into: its module must make it with .contiguous()"
    value = value.to(own.dtype)
    finite = value.isfinite()
    if finite.all():
        return None
    if not own.is_meta and torch.equal(value[~finite], whole(own).cpu()[~finite]):
        return None
    return f"holds NaN or infinity ({int((~finite).sum()):,} of {value.numel():,} values)"


def shared_bytes(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield the names of neighbours in memory that overlap."""
    spans = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, name)
        for name, tensor in tensors.items()
        if tensor.nbytes and not tensor.is_meta
    )
    end, owner = 0, ""
    for start, stop, name in spans:
        if start < end:
            yield min(owner, name), max(owner, name)
        if stop > end:
            end, owner = stop, name

"""The checksum of what a file holds: names, kinds, shapes, values and their order."""

import hashlib
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.weights import kind_of

_NOTHING = np.empty(0, np.uint8)
_PLAIN = (str, int, float, bool, bytes, type(None))
# A file may name one tensor several times, but not without end.
_REPEATS = 100


def checksum(content: object, max_bytes: float = math.inf) -> str:
    """Hash dicts, lists, tuples, dense tensors, arrays and plain values; SHA-256 in hex.

    Args:
        content: any nesting of these.
        max_bytes: how many bytes to hash before giving up; a hostile file may name one value many
            times, and so be without end.

    Raises:
        TypeError: naming an entry that is of another kind.
        ValueError: naming a tensor that is not dense, or on more bytes than ``max_bytes``.
    """
    digest, size = hashlib.sha256(), 0
    # A list in place of recursion, as files may be nested without end.
    waiting: list[tuple[str, object]] = [("", content)]
    while waiting:
        name, value = waiting.pop()
        head, body = _described(name, value)
        digest.update(f"{head}\n".encode())
        digest.update(body.data)
        size += len(head) + body.nbytes
        if size > max_bytes:
            raise ValueError("it holds more than it has bytes: one value many times")
        waiting += _entries(name, value)
    return digest.hexdigest()


def _described(name: str, value: object) -> tuple[str, NDArray[np.uint8]]:
    """Return the kind and size of a value, or all of it; and its bytes."""
    if isinstance(value, Mapping):
        return f"dict {len(value)}", _NOTHING
    if isinstance(value, list | tuple):
        return f"{'list' if isinstance(value, list) else 'tuple'} {len(value)}", _NOTHING
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}", bytes_of(name[1:], value)
    if isinstance(value, np.ndarray):
        flat = np.ascontiguousarray(value).reshape(-1)
        return f"{value.dtype.str} {list(value.shape)}", flat.view(np.uint8)
    if type(value) in _PLAIN:
        return ascii(value), _NOTHING
    raise TypeError(f"{name[1:]!r} is a {type(value).__name__}, no tensor or plain value")


def _entries(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from ((f"{name}/{key}", key), (f"{name}/{key}", entry))
    elif isinstance(value, list | tuple):
        yield from ((f"{name}/{place}", entry) for place, entry in enumerate(value))


def require_checksum(content: object, expected: object, size: int) -> None:
    """Raise ValueError if content from a file of ``size`` bytes has another checksum, or none."""
    if expected is None:
        raise ValueError("it has no checksum")
    if checksum(content, _REPEATS * size) != expected:
        raise ValueError("its content is not that of its checksum")


def bytes_of(name: str, tensor: Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a tensor; ValueError that names it unless it is dense."""
    if (kind := kind_of(tensor)) != "dense":
        raise ValueError(f"{name!r} is {kind}, expected a dense tensor")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name!r} {list(tensor.shape)} repeats its bytes; make it contiguous")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return array

"""The checksum of what a file holds: names, kinds, shapes, values and their order."""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.weights import kind_of

_NOTHING = np.empty(0, np.uint8)
_MAX_NAME = 10_000
_PLAIN = (str, int, float, bool, bytes, type(None))


def checksum(content: object, max_bytes: float = math.inf) -> str:
    """Hash nested dicts, lists, tuples, dense tensors, arrays and plain values; SHA-256 in hex.

    A hostile file may hold one value many times, or itself: ``max_bytes`` and the length of a
    value's name end it.
    """
    digest, size = hashlib.sha256(), 0
    # A list in place of recursion, as files may be nested without end.
    waiting: list[tuple[str, object]] = [("", content)]
    while waiting:
        name, value = waiting.pop()
        if len(name) > _MAX_NAME:
            raise ValueError("it is nested without end")
        body = _NOTHING
        if isinstance(value, Mapping):
            head = f"dict {len(value)}"
            for key, entry in value.items():
                waiting += ((f"{name}/{key}", key), (f"{name}/{key}", entry))
        elif isinstance(value, list | tuple):
            head = f"{'list' if isinstance(value, list) else 'tuple'} {len(value)}"
            waiting += ((f"{name}/{position}", entry) for position, entry in enumerate(value))
        elif isinstance(value, Tensor):
            head, body = f"{value.dtype} {list(value.shape)}", bytes_of(name[1:], value)
        elif isinstance(value, np.ndarray):
            head = f"{value.dtype.str} {list(value.shape)}"
            body = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        elif type(value) in _PLAIN:
            head = ascii(value)
        else:
            raise TypeError(f"{name[1:]!r} is a {type(value).__name__}, no tensor or plain value")
        digest.update(f"{head}\n".encode())
        digest.update(body.data)
        size += len(head) + body.nbytes
        if size > max_bytes:
            raise ValueError("it holds more than it has bytes: one value many times")
    return digest.hexdigest()


def bytes_of(name: str, tensor: Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a tensor; ValueError that names it unless it is dense."""
    if (kind := kind_of(tensor)) != "dense":
        raise ValueError(f"{name!r} is {kind}, expected a dense tensor")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name!r} {list(tensor.shape)} repeats its bytes; make it contiguous")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return array

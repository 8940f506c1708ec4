"""Files in the safetensors layout: a JSON header, then the bytes of each tensor.

Ours hold a checksum of every tensor, and one of the header; a file by another program has none.
"""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.files import bytes_of, checksum, open_atomic, open_regular
from fusecomp._core.strict_json import parse_json

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ABOUT, _CHECKSUM, _CHECKSUMS = "__metadata__", "checksum", "tensor_checksums"
# The limit of the safetensors library itself: a longer header is an attack or a torn file.
_LONGEST_HEADER = 100_000_000


class TensorFile(NamedTuple):
    """Content of a file: texts about it, tensors by name, and the checksum of its header."""

    about: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    checksum: str | None


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """Write a file atomically, and return the checksum of its header, which covers all tensors."""
    # Wide items first, so that each tensor starts at a multiple of its item size.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))
    arrays = [bytes_of(name, tensor) for name, tensor in ordered.items()]
    sums = {name: checksum(tensor) for name, tensor in ordered.items()}
    texts = {**about, _CHECKSUMS: json.dumps(sums)}
    header: dict[str, object] = {_ABOUT: texts}
    end = 0
    for name, tensor in ordered.items():
        if tensor.dtype not in _NAMES:
            raise ValueError(f"{name!r} is {tensor.dtype}, which no safetensors file can hold")
        start, end = end, end + tensor.nbytes
        kind, shape = _NAMES[tensor.dtype], list(tensor.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    texts[_CHECKSUM] = checksum(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open_atomic(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays:
            file.write(array.data)
    return texts[_CHECKSUM]


def read_safetensors(path: Path, unverified: Collection[str] = ()) -> TensorFile:
    """Map a file into memory, privately; checksums of ``unverified`` tensors are not compared.

    ValueError if it is torn or changed; other exceptions on a malformed header.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"its header should be {length} bytes long")
        header = parse_json(file.read(length), "its header")
        start = 8 + length
        # Copy-on-write: torch wants memory that could be written.
        data = np.memmap(file, np.uint8, "c", start) if start < size else np.empty(0, np.uint8)
    about = header.pop(_ABOUT)
    if not all(isinstance(text, str) for text in about.values()):
        raise ValueError("its metadata are no texts")
    tensors = dict(_tensors(data, header))
    known = about.pop(_CHECKSUM, None)
    if known is not None:
        if checksum({_ABOUT: about, **header}) != known:
            raise ValueError("its header is not that of its checksum")
        sums = parse_json(about.pop(_CHECKSUMS), "its checksums")
        for name in tensors.keys() - unverified:
            if checksum(tensors[name]) != sums.get(name):
                raise ValueError(f"its {name} are not those of their checksum")
    return TensorFile(about, tensors, known)


def encode_json(value: object) -> Tensor:
    """Return a value as JSON, uint8 [B]; ASCII, which also holds file names that are not UTF-8."""
    text = json.dumps(value, allow_nan=False).encode()
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def decode_json(encoded: Tensor, where: str) -> Any:
    """Return the value; ValueError that says ``where`` if it is no strict JSON."""
    return parse_json(encoded.numpy().tobytes(), where)


def _tensors(
    data: NDArray[np.uint8], header: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors by name; together they fill the file."""
    position = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if type(start) is not int or type(end) is not int or start != position or end < start:
            raise ValueError(f"its tensors overlap or leave a gap at byte {position}")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"the shape {shape} is not one of whole numbers from 0")
        position = end
        if 0 in shape and start == end:
            yield name, torch.empty(shape, dtype=dtype)
        else:
            # A slice, as a view of a wider dtype must begin where its storage does.
            yield name, torch.from_numpy(data[start:end]).view(dtype).view(shape)
    if position != data.size:
        raise ValueError(f"its tensors have {position} bytes, but it holds {data.size}")

"""The feature file: the safetensors layout, written and memory-mapped with numpy alone."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusecomp.files import open_atomic, open_regular, parse_json, reading

__all__ = ["FeatureFile", "read_features", "write_features"]

_FORMAT = "fusecomp.features/1"
_DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "U8": np.dtype("u1"),
}
_ARRAYS = ("image_features", "text_features", "image_ids", "texts")
# The limit of the safetensors library itself: a longer header is an attack or a torn file.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """What the file holds: names and features [N, D] of both sides, and the encoder's key.

    ``skipped`` says of further pictures why they have no features.
    """

    image_ids: list[str]
    image_features: NDArray[Any]
    texts: list[str]
    text_features: NDArray[Any]
    key: str
    skipped: Mapping[str, str]


def write_features(path: Path, content: FeatureFile) -> None:
    """Write the file atomically."""
    arrays = {
        "image_features": np.ascontiguousarray(content.image_features),
        "text_features": np.ascontiguousarray(content.text_features),
        "image_ids": _encode_names(content.image_ids),
        "texts": _encode_names(content.texts),
    }
    # Wide items first, so that each array starts at a multiple of its item size.
    ordered = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    about = {"format": _FORMAT, "key": content.key, "skipped": json.dumps(dict(content.skipped))}
    header: dict[str, Any] = {"__metadata__": about}
    end = 0
    for name, array in ordered.items():
        start, end = end, end + array.nbytes
        kind = next((k for k, dtype in _DTYPES.items() if dtype == array.dtype), None)
        if kind is None:
            raise ValueError(f"{name} is {array.dtype}; a feature file holds {', '.join(_DTYPES)}")
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open_atomic(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in ordered.values():
            file.write(array.data)


def _encode_names(names: list[str]) -> NDArray[np.uint8]:
    # In ASCII, which also holds file names that are not UTF-8.
    return np.frombuffer(json.dumps(names).encode(), dtype=np.uint8)


def read_features(path: Path) -> FeatureFile:
    """Map the file into memory.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is torn, or no feature file.
    """
    problem, way_out = "torn or no feature file", "delete it and build it again"
    with reading(path, "feature file", problem, way_out):
        header, data = _read_header(path)
        arrays = {name: _map(path, header[name], data) for name in _ARRAYS}
        about = header["__metadata__"]
        return FeatureFile(
            image_ids=_decode_names(arrays["image_ids"]),
            image_features=arrays["image_features"],
            texts=_decode_names(arrays["texts"]),
            text_features=arrays["text_features"],
            key=str(about.get("key", "")),
            skipped=_decode_skipped(about.get("skipped", "{}")),
        )


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where the data begin."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"its header should be {length} bytes long")
        header = parse_json(file.read(length), "its header")
    form = header["__metadata__"]["format"]
    if form != _FORMAT:
        raise ValueError(f"its format is {form!r}, expected {_FORMAT!r}")
    end = max(header[name]["data_offsets"][1] for name in _ARRAYS)
    if 8 + length + end != size:
        raise ValueError(f"it is {size} bytes long, expected {8 + length + end}")
    return header, 8 + length


def _map(path: Path, entry: dict[str, Any], data: int) -> NDArray[Any]:
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if start < 0 or any(side < 0 for side in shape):
        raise ValueError("negative offsets or shapes")
    if end - start != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{end - start} bytes do not make {entry['dtype']} {list(shape)}")
    if start == end:
        return np.empty(shape, dtype)
    # Copy-on-write: torch wants memory that could be written, and the file stays as it is.
    return np.memmap(path, dtype, mode="c", offset=data + start, shape=shape)


def _decode_names(array: NDArray[Any]) -> list[str]:
    names = parse_json(array.tobytes(), "its names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("names are not a list of strings")
    return names


def _decode_skipped(text: str) -> dict[str, str]:
    skipped = parse_json(text, "what was skipped")
    return {str(name): str(reason) for name, reason in skipped.items()}

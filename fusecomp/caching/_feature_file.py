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

from fusecomp._core.checksum import checksum
from fusecomp._core.files import open_atomic, open_regular, parse_json, reading

__all__ = ["FeatureFile", "read_features", "write_features"]

_FORMAT = "fusecomp.features/2"
# Without checksums; other programs may still write it.
_PLAIN_FORMAT = "fusecomp.features/1"
_DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}
_ARRAYS = ("image_features", "text_features", "image_ids", "texts")
_MARKS = "image_files"
# The limit of the safetensors library itself: a longer header is an attack or a torn file.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """What the file holds: names and features [N, D] of both sides, and the encoder's key.

    ``skipped`` says of further images why they have no features; ``image_marks`` int64 [N + S]
    tells the files of the N images and the S skipped ones, where it is known.
    """

    image_ids: list[str]
    image_features: NDArray[Any]
    texts: list[str]
    text_features: NDArray[Any]
    key: str
    skipped: Mapping[str, str]
    image_marks: NDArray[np.int64] | None = None


def write_features(path: Path, content: FeatureFile) -> None:
    """Write the file atomically, with a checksum of header and names and one of the features."""
    arrays = {
        "image_features": np.ascontiguousarray(content.image_features),
        "text_features": np.ascontiguousarray(content.text_features),
        "image_ids": _encode_names(content.image_ids),
        "texts": _encode_names(content.texts),
    }
    if content.image_marks is not None:
        arrays[_MARKS] = content.image_marks
    # Wide items first, so that each array starts at a multiple of its item size.
    ordered = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    about = {
        "format": _FORMAT,
        "key": content.key,
        "skipped": json.dumps(dict(content.skipped)),
        "features_checksum": _checksum_of_features(arrays),
    }
    header: dict[str, Any] = {"__metadata__": about}
    end = 0
    for name, array in ordered.items():
        start, end = end, end + array.nbytes
        kind = next((k for k, dtype in _DTYPES.items() if dtype == array.dtype), None)
        if kind is None:
            raise ValueError(f"{name} is {array.dtype}; a feature file holds {', '.join(_DTYPES)}")
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
    about["checksum"] = _checksum_of_names(header, arrays)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open_atomic(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in ordered.values():
            file.write(array.data)


def _checksum_of_names(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    about = {name: text for name, text in header["__metadata__"].items() if name != "checksum"}
    entries = {**header, "__metadata__": dict(sorted(about.items()))}
    names = [arrays[name] for name in ("image_ids", "texts", _MARKS) if name in arrays]
    return checksum([sorted(entries.items()), *names])


def _checksum_of_features(arrays: Mapping[str, NDArray[Any]]) -> str:
    return checksum([arrays["image_features"], arrays["text_features"]])


def _encode_names(names: list[str]) -> NDArray[np.uint8]:
    # In ASCII, which also holds file names that are not UTF-8.
    return np.frombuffer(json.dumps(names).encode(), dtype=np.uint8)


def read_features(path: Path, check: bool = False) -> FeatureFile:
    """Map the file into memory.

    Args:
        path: the file.
        check: read the features too, and verify their checksum.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it is no regular file, or cannot be opened.
        ValueError: if it is torn or changed, or no feature file.
    """
    problem, way_out = "torn or no feature file", "delete it and build it again"
    with reading(path, "feature file", problem, way_out):
        header, data = _read_header(path)
        known = [name for name in (*_ARRAYS, _MARKS) if name in (*_ARRAYS, *header)]
        arrays = {name: _map(path, header[name], data) for name in known}
        about = header["__metadata__"]
        if about["format"] != _PLAIN_FORMAT:
            if about.get("checksum") != _checksum_of_names(header, arrays):
                raise ValueError("its header or its names are not those of their checksum")
            if check and about.get("features_checksum") != _checksum_of_features(arrays):
                raise ValueError("its features are not those of their checksum")
        elif check:
            raise ValueError(f"its format {_PLAIN_FORMAT!r} has no checksum to verify")
        image_ids = _decode_names(arrays["image_ids"])
        skipped = _decode_skipped(about.get("skipped", "{}"))
        return FeatureFile(
            image_ids=image_ids,
            image_features=arrays["image_features"],
            texts=_decode_names(arrays["texts"]),
            text_features=arrays["text_features"],
            key=_string(about.get("key", "")),
            skipped=skipped,
            image_marks=_marks(arrays.get(_MARKS), len(image_ids) + len(skipped)),
        )


def _marks(array: NDArray[Any] | None, count: int) -> NDArray[np.int64] | None:
    if array is not None and (array.dtype != np.int64 or array.shape != (count,)):
        raise ValueError(
            f"{_MARKS} are {array.dtype} {list(array.shape)}, expected int64 [{count}]"
        )
    return array


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where the data begin."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"its header should be {length} bytes long")
        header = parse_json(file.read(length), "its header")
    form = header["__metadata__"]["format"]
    if form not in (_FORMAT, _PLAIN_FORMAT):
        raise ValueError(f"its format is {form!r}, expected {_FORMAT!r}")
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    end = 0
    for span in sorted(entry["data_offsets"] for entry in entries):
        if not all(type(place) is int for place in span) or span[0] != end:
            raise ValueError(f"its arrays overlap or leave a gap at byte {end}")
        _, end = span
    if 8 + length + end != size:
        raise ValueError(f"it is {size} bytes long, expected {8 + length + end}")
    return header, 8 + length


def _map(path: Path, entry: dict[str, Any], data: int) -> NDArray[Any]:
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(f"the shape {shape} is not one of whole numbers from 0")
    if end - start != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{end - start} bytes do not make {entry['dtype']} {list(shape)}")
    if start == end:
        return np.empty(shape, dtype)
    # Copy-on-write: torch wants memory that could be written, and the file stays as it is.
    return np.memmap(path, dtype, mode="c", offset=data + start, shape=shape)


def _decode_names(array: NDArray[Any]) -> list[str]:
    if array.dtype != _DTYPES["U8"] or array.ndim != 1:
        raise ValueError("names are not bytes")
    names = parse_json(array.tobytes(), "its names")
    if not isinstance(names, list):
        raise ValueError("names are no list")
    return [_string(name) for name in names]


def _decode_skipped(text: str) -> dict[str, str]:
    skipped = parse_json(text, "its skipped images")
    return {_string(name): _string(reason) for name, reason in skipped.items()}


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is no string")
    return value

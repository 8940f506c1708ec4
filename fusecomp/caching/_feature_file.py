"""The feature file: names and features of both sides, in the safetensors layout."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fusecomp._core.files import reading
from fusecomp._core.safetensors import read_safetensors, write_safetensors
from fusecomp._core.strict_json import parse_json

_FORMAT = "fusecomp.features/3"
# Without checksums; other programs may still write it.
_PLAIN_FORMAT = "fusecomp.features/1"
_FEATURES = ("image_features", "text_features")
_MARKS = "image_files"


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """Names and features [N, D] of both sides, and the encoder's key.

    ``skipped`` says of further images why they have no features; ``image_marks`` int64 [N + S]
    tells the files of the N images and the S skipped ones, where it is known.
    """

    image_ids: Sequence[str]
    image_features: Tensor
    texts: Sequence[str]
    text_features: Tensor
    key: str
    skipped: Mapping[str, str]
    image_marks: Tensor | None = None


def write_features(path: Path, content: FeatureFile) -> None:
    """Write the file atomically, with checksums."""
    tensors = {
        "image_features": content.image_features,
        "text_features": content.text_features,
        "image_ids": _encode_names(content.image_ids),
        "texts": _encode_names(content.texts),
    }
    if content.image_marks is not None:
        tensors[_MARKS] = content.image_marks
    skipped = json.dumps(dict(content.skipped))
    write_safetensors(path, tensors, {"format": _FORMAT, "key": content.key, "skipped": skipped})


def _encode_names(names: Sequence[str]) -> Tensor:
    # In ASCII, which also holds file names that are not UTF-8.
    return torch.frombuffer(bytearray(json.dumps(list(names)).encode()), dtype=torch.uint8)


def read_features(path: Path, check: bool = False) -> FeatureFile:
    """Map the file into memory.

    Args:
        path: the file.
        check: read the features too, and verify their checksums.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it is no regular file, or cannot be opened.
        ValueError: if it is torn or changed, or no feature file.
    """
    problem, way_out = "torn or no feature file", "delete it and build it again"
    with reading(path, "feature file", problem, way_out):
        about, tensors, checksum = read_safetensors(path, () if check else _FEATURES)
        form = about["format"]
        if form not in (_FORMAT, _PLAIN_FORMAT):
            raise ValueError(f"its format is {form!r}, expected {_FORMAT!r}")
        if checksum is None and (check or form == _FORMAT):
            raise ValueError(f"its format {form!r} has no checksum to verify")
        image_ids = _decode_names(tensors["image_ids"])
        skipped = _decode_skipped(about.get("skipped", "{}"))
        return FeatureFile(
            image_ids=image_ids,
            image_features=tensors["image_features"],
            texts=_decode_names(tensors["texts"]),
            text_features=tensors["text_features"],
            key=about.get("key", ""),
            skipped=skipped,
            image_marks=_marks(tensors.get(_MARKS), len(image_ids) + len(skipped)),
        )


def _marks(marks: Tensor | None, count: int) -> Tensor | None:
    if marks is not None and (marks.dtype != torch.int64 or marks.shape != (count,)):
        raise ValueError(
            f"{_MARKS} are {marks.dtype} {list(marks.shape)}, expected int64 [{count}]"
        )
    return marks


def _decode_names(encoded: Tensor) -> list[str]:
    if encoded.dtype != torch.uint8 or encoded.ndim != 1:
        raise ValueError("names are not bytes")
    names = parse_json(encoded.numpy().tobytes(), "its names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("names are no list of strings")
    return names


def _decode_skipped(text: str) -> dict[str, str]:
    skipped = parse_json(text, "its skipped images")
    if not isinstance(skipped, dict) or not all(isinstance(r, str) for r in skipped.values()):
        raise ValueError("its skipped images are no reasons by id")
    return skipped

"""The feature file: names and features of both sides, in the safetensors layout."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fusecomp._core.checks import strings
from fusecomp._core.files import reading
from fusecomp._core.safetensors import (
    decode_json,
    encode_json,
    read_safetensors,
    write_safetensors,
)
from fusecomp._core.strict_json import parse_json
from fusecomp.caching._feature_table import FeatureTable
from fusecomp.caching._token_table import TokenTable
from fusecomp.types import SIDES

_FORMAT = "fusecomp.features/3"
# Without checksums; other programs may still write it.
_PLAIN_FORMAT = "fusecomp.features/1"
_FEATURES = ("image_features", "text_features", "image_tokens", "text_tokens")
_MARKS = "image_files"


def write_features(
    path: Path, image: FeatureTable, text: FeatureTable, key: str, image_marks: Tensor | None
) -> None:
    """Write both sides and the encoder's key atomically, with checksums.

    ``image_marks`` int64 [N + S] tells the files of the N images, then of the S skipped ones.
    Values are checked here, so that reading need not look at them.
    """
    tensors = {
        "image_features": image.features,
        "text_features": text.features,
        "image_ids": encode_json(list(image.rows)),
        "texts": encode_json(list(text.rows)),
    }
    for table in (image, text):
        table.require_finite()
        if table.tokens is not None:
            tensors[f"{table.side}_tokens"] = table.tokens.values
            tensors[f"{table.side}_token_offsets"] = table.tokens.offsets
    if image_marks is not None:
        tensors[_MARKS] = image_marks
    skipped = json.dumps(image.skipped)
    write_safetensors(path, tensors, {"format": _FORMAT, "key": key, "skipped": skipped})


def read_features(
    path: Path, check: bool = False
) -> tuple[FeatureTable, FeatureTable, str, Tensor | None]:
    """Map what ``write_features`` took into memory; ``check`` verifies the features too."""
    problem, way_out = "torn or no feature file", "delete it and build it again"
    with reading(path, "feature file", problem, way_out):
        about, tensors, checksum = read_safetensors(path, () if check else _FEATURES)
        form = about["format"]
        if form not in (_FORMAT, _PLAIN_FORMAT):
            raise ValueError(f"its format is {form!r}, expected {_FORMAT!r}")
        if checksum is None and (check or form == _FORMAT):
            raise ValueError(f"its format {form!r} has no checksum to verify")
        skipped = parse_json(about.get("skipped", "{}"), "its skipped images")
        if not isinstance(skipped, dict) or not all(isinstance(r, str) for r in skipped.values()):
            raise ValueError("its skipped images are no reasons by id")
        image_ids, texts = (
            strings("names", decode_json(tensors[name], "its names"))
            for name in ("image_ids", "texts")
        )
        of_images, of_texts = (_tokens(tensors, side) for side in SIDES)
        image = FeatureTable("image", image_ids, tensors["image_features"], skipped, of_images)
        text = FeatureTable("text", texts, tensors["text_features"], tokens=of_texts)
        if checksum is None:
            image.require_finite()
            text.require_finite()
        marks, count = tensors.get(_MARKS), len(image_ids) + len(skipped)
        if marks is not None and (marks.dtype != torch.int64 or marks.shape != (count,)):
            raise ValueError(
                f"{_MARKS} are {marks.dtype} {list(marks.shape)}, expected int64 [{count}]"
            )
        return image, text, about.get("key", ""), marks


def _tokens(tensors: Mapping[str, Tensor], side: str) -> TokenTable | None:
    values = tensors.get(f"{side}_tokens")
    return None if values is None else TokenTable(values, tensors[f"{side}_token_offsets"])

"""The file of a gallery: ids, attributes, features and their lengths, in the safetensors layout."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fusecomp._core.files import reading
from fusecomp._core.safetensors import read_safetensors, write_safetensors
from fusecomp._core.strict_json import parse_json
from fusecomp.retrieval._attributes import Value

_FORMAT = "fusecomp.gallery/1"


class GalleryFile(NamedTuple):
    """Content of the file; an image that was removed has no name, ``faiss`` are its bytes."""

    names: Sequence[str | None]
    attributes: Mapping[str, Sequence[Value]]
    key: str
    features: Tensor
    lengths: Tensor
    faiss: Tensor | None = None


def write_gallery(path: Path, content: GalleryFile) -> None:
    """Write the file atomically, with checksums."""
    texts = {"names": content.names, "attributes": content.attributes}
    tensors = {name: _encoded(value) for name, value in texts.items()}
    tensors |= {"features": content.features, "lengths": content.lengths}
    if content.faiss is not None:
        tensors["faiss"] = content.faiss
    write_safetensors(path, tensors, {"format": _FORMAT, "key": content.key})


def _encoded(value: object) -> Tensor:
    # In ASCII, which also holds file names that are not UTF-8.
    text = json.dumps(value, allow_nan=False).encode()
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def read_gallery(path: Path, check: bool) -> GalleryFile:
    """Map the file into memory; ``check`` verifies the features too."""
    with reading(path, "gallery", "torn or no gallery", "build and save it again"):
        about, tensors, checksum = read_safetensors(path, () if check else ("features",))
        if about["format"] != _FORMAT or checksum is None:
            raise ValueError(f"its format is {about['format']!r}, expected {_FORMAT!r}")
        names, attributes = (
            parse_json(tensors[name].numpy().tobytes(), f"its {name}")
            for name in ("names", "attributes")
        )
        features, lengths = tensors["features"], tensors["lengths"]
        faiss = tensors.get("faiss")
        return GalleryFile(names, attributes, about["key"], features, lengths, faiss)

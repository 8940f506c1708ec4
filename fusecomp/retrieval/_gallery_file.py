"""The file of a gallery: ids, attributes, features and their lengths, in the safetensors layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fusecomp._core.safetensors import (
    decode_json,
    encode_json,
    read_safetensors,
    write_safetensors,
)
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
    tensors = {
        "names": encode_json(content.names),
        "attributes": encode_json(content.attributes),
        "features": content.features,
        "lengths": content.lengths,
    }
    if content.faiss is not None:
        tensors["faiss"] = content.faiss
    write_safetensors(path, tensors, {"format": _FORMAT, "key": content.key})


def read_gallery(path: Path, check: bool) -> GalleryFile:
    """Map the file into memory; ``check`` verifies the features too."""
    about, tensors, checksum = read_safetensors(path, () if check else ("features",))
    if about["format"] != _FORMAT or checksum is None:
        raise ValueError(f"its format is {about['format']!r}, expected {_FORMAT!r}")
    names, attributes = (decode_json(tensors[n], f"its {n}") for n in ("names", "attributes"))
    features, lengths = tensors["features"], tensors["lengths"]
    return GalleryFile(names, attributes, about["key"], features, lengths, tensors.get("faiss"))

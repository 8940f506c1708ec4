"""Abilities of encoders and datasets beyond their protocols: one reader for each.

An attribute is asked for, as ``isinstance`` does not see what a wrapper passes on.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fusecomp._core.checks import shown
from fusecomp._core.foreign import inside, optional
from fusecomp.types import (
    FUSION_KEYWORDS,
    SIDES,
    Dataset,
    Encode,
    Encoder,
    EncodeTokens,
    Find,
    LoadImage,
    Similarity,
    Tokens,
)


def encode_function(encoder: Encoder, side: str) -> Encode:
    return encoder.encode_image if side == "image" else encoder.encode_text


def token_function(encoder: object, side: str) -> EncodeTokens | None:
    """Return what gives features and tokens of a side, or None (see ``types.GivesTokens``)."""
    if side not in optional(encoder, "token_sides", SIDES):
        return None
    return optional(encoder, f"encode_{side}_tokens", None)


def token_sides(encoder: object, keywords: Collection[str] = FUSION_KEYWORDS) -> list[str]:
    """Return the sides whose tokens some keywords name and the encoder gives."""
    named = [side for side in SIDES if f"{side}_tokens" in keywords]
    return [side for side in named if token_function(encoder, side) is not None]


def encode_named(
    encoder: Encoder, side: str, keywords: Collection[str], inputs: Any
) -> tuple[Tensor, Tokens | None]:
    """Return features of a side, and its tokens, where a keyword names them and they are given."""
    encode = token_function(encoder, side) if f"{side}_tokens" in keywords else None
    if encode is None:
        return encode_function(encoder, side)(inputs), None
    encoded: object = encode(inputs)
    parts = tuple(encoded) if isinstance(encoded, tuple | list) else (encoded,)
    features, tokens = parts if len(parts) == 2 else (None, None)
    if isinstance(features, Tensor) and isinstance(tokens, Tokens) and len(tokens) == len(features):
        return features, tokens
    raise TypeError(
        f"encode_{side}_tokens must return (features, Tokens), in this order and of as many rows, "
        f"got {', '.join(map(_rows_shown, parts))}"
    )


def _rows_shown(part: object) -> str:
    if isinstance(part, Tensor | Tokens):
        return f"{len(part)} rows of {type(part).__name__}"
    return shown(part)


def tower_function(encoder: object, side: str) -> Encode:
    """Return what encodes a side below its head (see ``types.HasHeads``)."""
    return partial(optional(encoder, "encode_tower"), side)


def image_loader(encoder: object) -> LoadImage | None:
    """Return what opens an image for ``encode_image``, or None (see ``types.LoadsImages``)."""
    return optional(encoder, "load_image", None)


def lookups_of(encoder: object) -> Mapping[str, Find]:
    """Return the lookup of each side that has one (see ``types.LooksUp``)."""
    return optional(encoder, "lookup", {})


def towers_of(encoder: object) -> Mapping[str, Sequence[str]] | None:
    """Return the name patterns of each side's parameters, or None (see ``types.HasTowers``)."""
    return optional(encoder, "towers", None)


def heads_of(encoder: object) -> Mapping[str, nn.Module]:
    """Return the head of each side that has one (see ``types.HasHeads``)."""
    return optional(encoder, "heads", {})


def similarity_of(fusion: object) -> Similarity | None:
    """Return a fusion's own similarity; None where the cosine compares."""
    fusion = inside(fusion)
    similarity: Similarity | None = optional(fusion, "similarity", None)
    if similarity is not None and not callable(similarity):
        raise TypeError(
            f"{type(fusion).__name__}.similarity must be a method similarity(query, target) -> "
            f"[Q, N], or None, got {similarity!r}"
        )
    return similarity


def skipped_images(encoder: object) -> Mapping[str, str]:
    """Return the images without features and the reasons (see ``CachedEncoder.skipped``)."""
    return optional(encoder, "skipped", {})


def told_fingerprint(part: object) -> str | None:
    """Return a part's ``fingerprint()``; None where it has none (see ``types.Fingerprinted``)."""
    make = optional(part, "fingerprint")
    return str(make()) if callable(make) else None


def known_fingerprint(part: object) -> str:
    """Return a part's ``fingerprint()``; empty where it has none or cannot name its state."""
    with suppress(ValueError):
        return told_fingerprint(part) or ""
    return ""


def protocol_of(dataset: Dataset) -> dict[str, str]:
    """Return the dataset's options that make scores comparable or not; its class at least."""
    return dict(optional(dataset, "protocol", {"dataset": type(dataset).__name__}))


def training_image_ids(dataset: Dataset) -> Sequence[str]:
    """Return the images that triplets name, where the dataset tells them, else all its images."""
    return optional(dataset, "triplet_image_ids", dataset.image_ids)


def reference_texts_of(dataset: Dataset) -> Mapping[str, str]:
    """Return a prompt for each reference by id, where the dataset has them."""
    return optional(dataset, "reference_texts", {})


def reference_prompts(texts: Mapping[str, str], image_ids: Sequence[str]) -> list[str]:
    """Return the prompt of each reference; ValueError that names one without."""
    for image_id in image_ids:
        if image_id not in texts:
            raise ValueError(f"reference_texts of the dataset lack the reference {image_id!r}")
    return [texts[image_id] for image_id in image_ids]


def image_path(dataset: Dataset, image_id: str) -> Path | None:
    """Return the path of an image; None where the dataset has no files, or none of this image."""
    locate = optional(dataset, "path")
    try:
        path = None if locate is None else locate(image_id)
    except FileNotFoundError:
        return None
    return path if isinstance(path, Path | None) else Path(path)

"""What an encoder or a dataset can do beyond its protocol: one reader for each ability.

A module is asked by ``getattr``, as ``isinstance`` does not see what a wrapper passes on.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import nn

from fusecomp.types import Dataset, Encode, Encoder, Find, LoadImage

__all__ = [
    "encode_function",
    "heads_of",
    "image_loader",
    "lookups_of",
    "protocol_of",
    "skipped_images",
    "told_fingerprint",
    "towers_of",
    "training_image_ids",
]


def encode_function(encoder: Encoder, side: str) -> Encode:
    """Return ``encode_image`` or ``encode_text``."""
    return encoder.encode_image if side == "image" else encoder.encode_text


def image_loader(encoder: object) -> LoadImage | None:
    """Return what opens an image for ``encode_image``, or None (see ``types.LoadsImages``)."""
    return cast(LoadImage | None, getattr(encoder, "load_image", None))


def lookups_of(encoder: object) -> Mapping[str, Find]:
    """Return the lookup of each side that has one (see ``types.LooksUp``)."""
    return cast(Mapping[str, Find], getattr(encoder, "lookup", {}))


def towers_of(encoder: object) -> Mapping[str, Sequence[str]] | None:
    """Return the name patterns of each side's parameters, or None (see ``types.HasTowers``)."""
    return cast(Mapping[str, Sequence[str]] | None, getattr(encoder, "towers", None))


def heads_of(encoder: object) -> Mapping[str, nn.Module]:
    """Return the head of each side that has one (see ``types.HasHeads``)."""
    return cast(Mapping[str, nn.Module], getattr(encoder, "heads", {}))


def skipped_images(encoder: object) -> Mapping[str, str]:
    """Return the images without features and the reasons (see ``CachedEncoder.skipped``)."""
    return cast(Mapping[str, str], getattr(encoder, "skipped", {}))


def told_fingerprint(part: object) -> str | None:
    """Return a part's ``fingerprint()``, or None where it has none (see ``types.Fingerprinted``).

    Raises:
        ValueError: if the part cannot name its state.
    """
    make = getattr(part, "fingerprint", None)
    return str(make()) if callable(make) else None


def protocol_of(dataset: Dataset) -> dict[str, str]:
    """Return the dataset's options that make scores comparable or not; its class at least."""
    return dict(getattr(dataset, "protocol", {"dataset": type(dataset).__name__}))


def training_image_ids(dataset: Dataset) -> Sequence[str]:
    """Return the images that triplets name, where the dataset tells them, else all its images."""
    return cast(Sequence[str], getattr(dataset, "triplet_image_ids", dataset.image_ids))

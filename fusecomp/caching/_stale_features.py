"""Whether the features of a file are those that an encoder would compute now."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusecomp._core.abilities import told_fingerprint
from fusecomp.caching._extraction import Extraction, names_of
from fusecomp.images import ABSENT, changed_image
from fusecomp.types import Dataset, Encoder

_WAY_OUT = "delete it to compute them again, or give another path"


def key_of(encoder: Encoder, key: str | None, extraction: Extraction) -> str:
    """Name all that features depend on but images and texts; ValueError without any key."""
    name = told_fingerprint(encoder) if key in (None, "", "content") else key
    if name is None:
        raise ValueError(
            f"{type(encoder).__name__} has no fingerprint(): pass a key that names its weights"
        )
    if key == "content":
        name += "; images by content"
    if extraction.precision != "fp32":
        name += f", computed in {extraction.precision}"
    if extraction.dtype is not None:
        name += f", stored as {extraction.dtype}"
    return name


def require_same(
    path: Path,
    cached: Any,
    key: str,
    marks: Mapping[str, int],
    datasets: Sequence[Dataset],
    extraction: Extraction,
) -> None:
    """Refuse the features of a file where others would be computed now.

    ``cached`` is the CachedEncoder of the file; ``key`` and the ``marks`` of the image files are
    those of now. With ``on_error="skip"`` images that were skipped then may be missing.
    """
    if cached.key != key:
        raise ValueError(
            f"{path} holds features under the key {cached.key!r}, but the encoder's is {key!r}"
            f"{_differing(cached.key, key)}; {_WAY_OUT}"
        )
    for table in (cached.image, cached.text):
        if table.side in extraction.tokens and table.tokens is None:
            raise ValueError(f"{path} holds no tokens of {table.side}s; {_WAY_OUT}")
        missing = [name for name in names_of(datasets, table.side) if name not in table.rows]
        if extraction.on_error == "skip":
            missing = [name for name in missing if name not in table.skipped]
        if missing:
            raise ValueError(
                f"{path} lacks the features of {len(missing)} {table.side}s, the first: "
                f"{missing[0]!r}; {_WAY_OUT}"
            )
    old = cached.image_marks
    if (image_id := changed_image(old, marks, cached.skipped)) is not None:
        raise ValueError(
            f"{path} was made of another file of the image {image_id!r} (its mark was "
            f"{old.get(image_id)} and is {marks[image_id]}); {_WAY_OUT}"
        )
    absent = [name for name, mark in marks.items() if mark == ABSENT and old.get(name, ABSENT) >= 0]
    if absent:
        warnings.warn(
            f"{len(absent)} of {len(marks)} images are not there, the first: {absent[0]!r}; their "
            f"features in {path} count as unchanged",
            stacklevel=3,
        )


def _differing(old: str, new: str) -> str:
    """Name the parts of two keys that differ, where both have the same ones."""
    one, other = (dict(p.partition(" ")[::2] for p in key.split("; ")) for key in (old, new))
    names = [name for name in one if one[name] != other.get(name)]
    return f" (other {', '.join(names)})" if one.keys() == other.keys() and len(one) > 1 else ""

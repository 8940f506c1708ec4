"""Images and texts as a person gives them to a model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from fusecomp._core.checks import ordered, shown, strings

# What may stand in a list by mistake, and is no image.
_NO_IMAGES = (int, float, bytes, list, tuple, dict, set, type(None))


def as_images(name: str, values: object) -> list[object]:
    """Return paths, ids or images as a list; ValueError on anything else."""
    if isinstance(values, Path):
        values = str(values)
    kinds = "paths, ids or images"
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ValueError(
            f"{name} must be a list of {kinds}, got an array {list(values.shape)}: put each array "
            "of pixels into a list, or pass loaded images as a tensor"
        )
    listed = ordered(name, values, kinds)
    for position, value in enumerate(listed):
        if isinstance(value, _NO_IMAGES):
            raise ValueError(
                f"{name} must be a list of {kinds}, or one tensor of loaded images: "
                f"{name}[{position}] is {shown(value)}"
            )
    return listed


def as_ids(images: Sequence[object]) -> list[str]:
    """Return ids as strings; ValueError on an opened image, which no encoder can look up."""
    for position, image in enumerate(images):
        if not isinstance(image, str | Path):
            raise ValueError(
                "images must be a list of ids, as this encoder looks images up, but number "
                f"{position} is {shown(image)}"
            )
    return [str(image) for image in images]


def one_each(name: str, texts: object, references: int) -> list[str]:
    """Return texts, one for each reference, as a list; ValueError on anything else."""
    for position, text in enumerate(ordered(name, texts, "strings")):
        if isinstance(text, list | tuple):
            raise ValueError(
                f"{name}[{position}] is {shown(text)}, but a query takes one text: for several, "
                "pass text_counts to compose, or evaluate a dataset of Triplet(..., texts=...)"
            )
    listed = strings(name, texts)
    if references != len(listed) or not listed:
        raise ValueError(
            f"{references} references but {len(listed)} {name}: give as many, and not empty"
        )
    return listed


def shown_row(references: Tensor | Sequence[object], row: int) -> str:
    """Return the name of a reference, where it has one."""
    name = None if isinstance(references, Tensor) else references[row]
    return f"{str(name)!r}" if isinstance(name, str | Path) else "a loaded image"

"""Names of images, and texts, as a person gives them to a model."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fusecomp._core.checks import ordered, shown, strings


def paths_or_ids(name: str, values: object) -> list[str | Path]:
    """Return paths or ids as a list; ValueError on anything else."""
    if isinstance(values, Path):
        values = str(values)
    listed = ordered(name, values, "strings")
    for position, value in enumerate(listed):
        if not isinstance(value, str | Path):
            raise ValueError(
                f"{name} must be a list of paths or ids, or one tensor of loaded images: "
                f"{name}[{position}] is {shown(value)}"
            )
    return listed


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


def shown_row(references: Tensor | Sequence[str | Path], row: int) -> str:
    """Return the name of a reference, where it has one."""
    return "a loaded image" if isinstance(references, Tensor) else f"{str(references[row])!r}"

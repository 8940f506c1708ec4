"""Whether a report was given what it is made of."""

from collections.abc import Mapping
from typing import Any

from fusecomp.checks import shown
from fusecomp.evaluation import Evaluation
from fusecomp.protocols import Dataset, require

__all__ = ["require_dataset", "require_evaluation", "require_rows", "require_texts"]


def require_evaluation(name: str, value: Any) -> None:
    """Raise TypeError unless this is an evaluation."""
    if not isinstance(value, Evaluation):
        raise TypeError(
            f"{name} must be an Evaluation, as evaluate returns it, got {shown(value)}; "
            "Evaluation.load(path) reads a saved one"
        )


def require_rows(rows: Any, kind: type) -> None:
    """Raise TypeError unless names are mapped to objects of a kind."""
    if not isinstance(rows, Mapping):
        raise TypeError(f"rows must map names to {kind.__name__}, got {shown(rows)}")
    for name, row in rows.items():
        if not isinstance(name, str) or not isinstance(row, kind):
            raise TypeError(
                f"rows must map names to {kind.__name__}, but {shown(name)} has {shown(row)}"
            )


def require_dataset(dataset: Dataset) -> None:
    """Raise TypeError unless this is a dataset, which knows where the images lie."""
    require("dataset", dataset, "path", "a Dataset", "what is drawn, dataset, path")


def require_texts(**texts: Any) -> None:
    """Raise TypeError on an argument that is no string."""
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a string, got {shown(text)}")

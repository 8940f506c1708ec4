"""Whether a report was given what it is made of."""

from collections.abc import Mapping
from typing import Any

from fusecomp._core.checks import require, shown
from fusecomp.types import Dataset

__all__ = ["require_dataset", "require_rows"]


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

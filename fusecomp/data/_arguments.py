"""Arguments of datasets that are no paths or texts are named with their value."""

import os
from pathlib import Path
from typing import Any

from fusecomp.checks import shown

__all__ = ["as_path", "as_text"]


def as_path(name: str, value: Any) -> Path:
    """The value as a path; TypeError unless it is a string or a path."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a path, a string or a pathlib.Path, got {shown(value)}")
    if "\0" in path:
        raise ValueError(f"{name} must be a path, which holds no NUL, got {shown(value)}")
    return Path(path)


def as_text(name: str, value: Any) -> str:
    """The value; TypeError unless it is a string."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {shown(value)}")
    return value

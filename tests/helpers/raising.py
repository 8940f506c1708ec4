"""Errors that somebody can act on."""

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fusecomp

ROOT = Path(fusecomp.__file__).parent


def own_error(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The message of the TypeError or ValueError that fusecomp itself raises in a call."""
    try:
        result = call(*arguments, **options)
    except (TypeError, ValueError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        assert Path(last.filename).is_relative_to(ROOT), f"raised elsewhere: {error!r}, {last}"
        assert (last.line or "").startswith("raise"), f"raised by accident: {error!r}, {last}"
        return str(error)
    raise AssertionError(f"accepted, and gave {result!r}")


def shown_id(value: object) -> str:
    """The ``repr`` as the name of a test, equal in every process."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({sorted(map(repr, value))})"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))

"""Progress on standard error: a bar where a person looks at it, elsewhere a line now and then.

The environment variable ``FUSECOMP_QUIET=1`` turns all of it off.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from fusecomp.distributed import get_rank

_T = TypeVar("_T")
# The length of a bar, and the columns of a terminal that has room for it; elsewhere it is a third.
_WIDTH, _ROOM = 24, 120
_REDRAW_SECONDS = 0.1
# In a log: the longest silence, and how long a phase must take to be worth a line at its end.
_SILENCE_SECONDS, _SHORT_SECONDS = 30.0, 5.0


def progress(
    items: Iterable[_T],
    total: int,
    label: str,
    unit: str,
    *,
    per_item: int = 1,
    start: int = 0,
    note: Callable[[], str] = str,
) -> Iterator[_T]:
    """Pass the items through and show how many units of ``total`` are done, from ``start``.

    Only the first of many processes shows its own part. ``note`` returns what else to show.
    """
    if _is_silent():
        yield from items
        return
    terminal = _is_terminal()
    began = shown = time.monotonic()
    done = start

    def show(seconds: float, ending: str) -> None:
        rate = (done - start) / max(seconds, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
        speed = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
        line = f"{done}/{total} {unit}, {speed}/s{ending or left}"
        line = "; ".join(filter(None, (line, note())))
        share = done / total if total else 1.0
        _write(_drawn(label, share, line) if terminal else f"{label}: {line}\n")

    try:
        for item in items:
            yield item
            done = min(done + per_item, total)
            now = time.monotonic()
            if now - shown >= (_REDRAW_SECONDS if terminal else _SILENCE_SECONDS):
                shown = now
                show(now - began, "")
    finally:
        seconds = time.monotonic() - began
        if terminal or seconds >= _SHORT_SECONDS:
            show(seconds, f", {seconds:.0f} s{', stopped' if done < total else ''}")
        if terminal:
            _write("\n")


def _drawn(label: str, share: float, line: str) -> str:
    """Return a line with a bar; one that wraps would be drawn below the last one."""
    columns = shutil.get_terminal_size((100, 24)).columns
    width = _WIDTH if columns >= _ROOM else _WIDTH // 3
    filled = round(width * share)
    bar = f"{'#' * filled}{'-' * (width - filled)}"
    return f"\r{f'{label:<28.28} [{bar}] {line}':<{columns - 1}.{columns - 1}}"


def say(line: str) -> None:
    """Write a line, on the first of many processes."""
    if not _is_silent():
        _write(f"{line}\n")


def _is_silent() -> bool:
    return get_rank() > 0 or os.environ.get("FUSECOMP_QUIET", "0") not in ("", "0")


# Standard error may be None, closed, a broken pipe or on a full disk: the work matters more.
_UNWRITABLE = (AttributeError, OSError, ValueError)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except _UNWRITABLE:
        return False


def _write(text: str) -> None:
    with suppress(*_UNWRITABLE):
        sys.stderr.write(text)
        sys.stderr.flush()

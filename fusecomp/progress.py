"""One progress line on standard error, where a person looks at it."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["progress"]

_T = TypeVar("_T")
_WIDTH = 24
_REDRAW_SECONDS = 0.1


def progress(
    items: Iterable[_T], total: int, label: str, unit: str, *, per_item: int = 1, start: int = 0
) -> Iterator[_T]:
    """Pass the items through and draw a bar, if standard error is a terminal.

    Args:
        items: what to iterate over.
        total: how many units there are in all.
        label: what is being done.
        unit: the name of a unit, in the plural.
        per_item: how many units an item stands for.
        start: how many units were done before.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    began = drawn = time.monotonic()
    done = start
    try:
        for item in items:
            yield item
            done = min(done + per_item, total)
            if time.monotonic() - drawn >= _REDRAW_SECONDS:
                drawn = time.monotonic()
                _draw(label, unit, done, total, (done - start) / (drawn - began))
    finally:
        seconds = max(time.monotonic() - began, 1e-9)
        _draw(label, unit, done, total, (done - start) / seconds)
        sys.stderr.write("\n")


def _draw(label: str, unit: str, done: int, total: int, rate: float) -> None:
    share = done / total if total else 1.0
    filled = round(_WIDTH * share)
    left = f"{(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
    bar = "#" * filled + "-" * (_WIDTH - filled)
    line = f"\r{label:<28} [{bar}] {done}/{total} {unit} {rate:.0f}/s {left}"
    sys.stderr.write(f"{line:<100}")
    sys.stderr.flush()

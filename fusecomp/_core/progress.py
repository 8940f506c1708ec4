"""Progress on standard error: a bar where a person looks at it, elsewhere a line now and then."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from fusecomp.distributed import get_rank

_T = TypeVar("_T")
_WIDTH = 24
_REDRAW_SECONDS = 0.1
# In a log: the longest silence, and how long a phase must take to be worth a line at its end.
_SILENCE_SECONDS, _SHORT_SECONDS = 30.0, 5.0


def progress(
    items: Iterable[_T], total: int, label: str, unit: str, *, per_item: int = 1, start: int = 0
) -> Iterator[_T]:
    """Pass the items through and show how many are done.

    A terminal gets a bar. Elsewhere (a log, a notebook) a plain line comes twice a minute, and one
    at the end of what took longer than a few seconds. Of many processes only the first shows its
    own part. Where nothing can be written, nothing is shown.

    Args:
        items: what to iterate over.
        total: how many units there are in all.
        label: what is being done.
        unit: the name of a unit, in the plural.
        per_item: how many units an item stands for.
        start: how many units were done before.
    """
    if get_rank() > 0:
        yield from items
        return
    terminal = _is_terminal()
    show, pause = (_draw, _REDRAW_SECONDS) if terminal else (_log, _SILENCE_SECONDS)
    began = shown = time.monotonic()
    done = start
    try:
        for item in items:
            yield item
            done = min(done + per_item, total)
            now = time.monotonic()
            if now - shown >= pause:
                shown = now
                rate = (done - start) / (now - began)
                left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
                show(label, done, total, f"{unit}, {_rounded(rate)}/s{left}")
    finally:
        seconds = max(time.monotonic() - began, 1e-9)
        rate = (done - start) / seconds
        stopped = ", stopped" if done < total else ""
        if terminal or seconds >= _SHORT_SECONDS:
            show(label, done, total, f"{unit}, {_rounded(rate)}/s, {seconds:.0f} s{stopped}")
        if terminal:
            _write("\n")


def _draw(label: str, done: int, total: int, speed: str) -> None:
    filled = round(_WIDTH * (done / total if total else 1.0))
    bar = "#" * filled + "-" * (_WIDTH - filled)
    line = f"\r{label:<28.28} [{bar}] {done}/{total} {speed}"
    _write(f"{line:<100}")


def _log(label: str, done: int, total: int, speed: str) -> None:
    _write(f"{label}: {done}/{total} {speed}\n")


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


def _rounded(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"

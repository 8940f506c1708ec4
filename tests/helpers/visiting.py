"""Threads that stay in a section until they are told to leave."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

SECONDS = 20.0  # longer than any wait that ends


class Visitor:
    """A thread that enters a section at once, and leaves it when told to."""

    def __init__(self, section: Callable[[], AbstractContextManager[Any]]) -> None:
        self._section = section
        self._entered, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._visit, daemon=True)
        self._thread.start()

    def _visit(self) -> None:
        with self._section():
            self._entered.set()
            self._leave.wait(SECONDS)

    def is_in(self) -> bool:
        return self._entered.wait(SECONDS)

    def waits(self) -> bool:
        return not self._entered.wait(0.05)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

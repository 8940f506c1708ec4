"""Locks of models: any number of threads may read one at once, and one changes it alone.

Models share parts, such as two fusions on one encoder, so that it is modules that are held, not
models: a thread gets all modules that it asks for at once, or waits. Who came first goes first:
neither a training nor a query waits for ever. A thread never waits for itself.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import takewhile

from torch import nn


def modules_of(*parts: object) -> dict[int, nn.Module]:
    """Return every module within the parts, once, by its ``id``; other parts have none."""
    modules = (m for part in parts if isinstance(part, nn.Module) for m in part.modules())
    return {id(module): module for module in modules}


@contextmanager
def reading(*parts: object) -> Iterator[None]:
    """Set evaluation mode inside, where no other thread changes the parts; restore the modes.

    Of many threads the first saves the mode of a module, and the last gives it back.
    """
    modules, book = modules_of(*parts), _book()
    with book.entered(_Section(modules, alone=False)):
        book.evaluate(modules)
        try:
            yield
        finally:
            book.give_back(modules)


def changing(modules: Mapping[int, nn.Module]) -> AbstractContextManager[None]:
    """Keep other threads from reading or changing the modules inside; this one may read them."""
    return _book().entered(_Section(modules, alone=True))


@dataclass(eq=False, slots=True)
class _Section:
    """Modules that a thread holds, or waits for."""

    modules: Mapping[int, nn.Module]
    alone: bool
    thread: int = field(default_factory=threading.get_ident)

    def excludes(self, other: "_Section") -> bool:
        if self.thread == other.thread or not (self.alone or other.alone):
            return False
        return not self.modules.keys().isdisjoint(other.modules)


class _Book:
    """The sections of all threads; a module is remembered only while somebody holds it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: list[_Section] = []
        self._waiting: list[_Section] = []  # in the order in which they came
        self._readers: Counter[int] = Counter()
        self._modes: dict[int, bool] = {}

    @contextmanager
    def entered(self, section: _Section) -> Iterator[None]:
        try:
            with self._changed:
                self._waiting.append(section)
                try:
                    self._changed.wait_for(lambda: not self._must_wait(section))
                    self._held.append(section)
                finally:
                    self._waiting.remove(section)
            yield
        finally:
            with self._changed:
                if section in self._held:
                    self._held.remove(section)
                self._changed.notify_all()

    def _must_wait(self, section: _Section) -> bool:
        if any(map(section.excludes, self._held)):
            return True
        # Those who came earlier may be waiting for what this thread holds already.
        if any(held.thread == section.thread for held in self._held):
            return False
        earlier = takewhile(lambda other: other is not section, self._waiting)
        return any(map(section.excludes, earlier))

    def evaluate(self, modules: Mapping[int, nn.Module]) -> None:
        with self._changed:
            # All modes before any is set: a compiled module has that of the one inside.
            for key in modules.keys() - self._readers.keys():
                self._modes[key] = modules[key].training
            self._readers.update(modules.keys())
            for module in modules.values():
                set_mode(module, False)

    def give_back(self, modules: Mapping[int, nn.Module]) -> None:
        with self._changed:
            for key, module in modules.items():
                self._readers[key] -= 1
                if not self._readers[key]:
                    del self._readers[key]
                    set_mode(module, self._modes.pop(key))
            for key in modules.keys() & self._readers.keys():
                set_mode(modules[key], False)  # which a parent's own ``train`` may have changed


def set_mode(module: nn.Module, training: bool) -> None:
    """Set the mode of a module, by its own ``train`` if it has one; set its children's after it."""
    if module.training is training:  # setting an attribute of a module takes long
        return
    if type(module).train is not nn.Module.train:
        module.train(training)
    module.training = training


# A process that was forked, as those are that load images, has none of the threads.
_BOOKS: dict[int, _Book] = {}


def _book() -> _Book:
    process = os.getpid()
    return _BOOKS.get(process) or _BOOKS.setdefault(process, _Book())

"""Many readers or one that changes, in real threads."""

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from visiting import SECONDS, Visitor

from fusecomp._core.reading import changing, modules_of, reading


def mixed() -> nn.Sequential:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    model[1].eval()
    return model


def modes(*modules: nn.Module) -> list[bool]:
    return [m.training for module in modules for m in module.modules()]


@pytest.mark.parametrize("order", ["abc", "bca", "cab", "cba"])
def test_the_last_reader_gives_the_modes_back(order: str) -> None:
    model = mixed()
    before = modes(model)
    readers = {name: Visitor(lambda: reading(model)) for name in "abc"}
    assert all(reader.is_in() for reader in readers.values())
    for name in order:
        assert not any(modes(model))
        readers[name].leave()
    assert modes(model) == before


class Masking(nn.Module):
    """Follows its mode by a flag of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Dropout()
        self.masking = True

    def train(self, mode: bool = True) -> "Masking":
        super().train(mode)
        self.masking = mode
        return self


def test_a_module_s_own_train_is_called() -> None:
    own = Masking()
    own.inner.eval()
    with reading(nn.Sequential(own)), reading(own.inner):
        assert (own.masking, own.inner.training) == (False, False)
    assert (own.masking, own.training, own.inner.training) == (True, True, False)


def test_a_part_that_is_still_read_keeps_its_mode() -> None:
    module = Masking()
    with reading(module.inner):
        with reading(module):
            pass
        assert module.masking
        assert not module.inner.training
    assert module.inner.training


def test_models_that_share_a_part_are_read_together() -> None:
    shared, one, other = mixed(), nn.Dropout(), nn.Dropout()
    before = modes(shared, one, other)
    first, second = Visitor(lambda: reading(shared, one)), Visitor(lambda: reading(other, shared))
    assert first.is_in()
    assert second.is_in()
    first.leave()
    assert one.training
    assert not any(modes(shared, other))
    second.leave()
    assert modes(shared, one, other) == before


def test_a_compiled_module_has_the_mode_of_the_one_inside() -> None:
    model = nn.Dropout()
    compiled = torch.compile(model, backend="eager")
    for parts in ((compiled,), (model, compiled), (compiled, model)):
        with reading(*parts):
            assert not model.training
        assert model.training
        assert compiled.training


def test_a_change_waits_for_readers_of_a_part_and_they_for_it() -> None:
    model, other = mixed(), nn.Dropout()
    reader = Visitor(lambda: reading(model[1]))
    assert reader.is_in()
    change = Visitor(lambda: changing(modules_of(model)))
    elsewhere = Visitor(lambda: changing(modules_of(other, len)))
    assert change.waits()
    assert elsewhere.is_in()
    reader.leave()
    assert change.is_in()
    late = Visitor(lambda: reading(model))
    assert late.waits()
    assert modes(model) == modes(mixed())
    change.leave()
    assert late.is_in()
    late.leave()
    elsewhere.leave()


def test_who_came_first_goes_first() -> None:
    model = mixed()
    reader = Visitor(lambda: reading(model))
    assert reader.is_in()
    change = Visitor(lambda: changing(modules_of(model)))
    assert change.waits()
    # Not beside the first one: readers that come and go would keep the change out for ever.
    late = Visitor(lambda: reading(model))
    assert late.waits()
    second_change = Visitor(lambda: changing(modules_of(model)))
    assert second_change.waits()
    for section, next_one in ((reader, change), (change, late), (late, second_change)):
        section.leave()
        assert next_one.is_in()
    second_change.leave()


def test_a_reader_never_waits_for_who_waits_for_it() -> None:
    model, go = mixed(), threading.Event()

    @contextmanager
    def nested() -> Iterator[None]:
        with reading(model[0]):
            go.wait(SECONDS)
            with reading(model), reading(model[1]):
                assert not any(modes(model))
                yield

    reader = Visitor(nested)
    assert reader.waits()
    change = Visitor(lambda: changing(modules_of(model)))
    assert change.waits()
    go.set()
    assert reader.is_in()
    assert change.waits()
    reader.leave()
    assert change.is_in()
    change.leave()


def test_who_changes_may_read_inside() -> None:
    model = mixed()
    before = modes(model)
    with changing(modules_of(model)), changing(modules_of(model)):
        with reading(model):
            assert not any(modes(model))
        assert modes(model) == before
        late = Visitor(lambda: reading(model))
        assert late.waits()
    assert late.is_in()
    late.leave()


def test_a_change_inside_a_read_does_not_switch_dropout_on_for_the_next_read() -> None:
    model = mixed()
    before = modes(model)
    with reading(model):
        with changing(modules_of(model)):
            model.train()
        with reading(model):
            assert not any(modes(model))
    assert modes(model) == before


@pytest.mark.parametrize("kind", [reading, lambda model: changing(modules_of(model))])
def test_an_error_inside_lets_the_others_in(kind: Callable[[Any], Any]) -> None:
    model = mixed()
    before = modes(model)
    with pytest.raises(KeyboardInterrupt), kind(model):
        raise KeyboardInterrupt
    assert modes(model) == before
    change = Visitor(lambda: changing(modules_of(model)))
    assert change.is_in()
    change.leave()


def test_no_module_is_kept_alive() -> None:
    model = mixed()
    gone = weakref.ref(model)
    with reading(model), changing(modules_of(model)):
        pass
    del model
    gc.collect()
    assert gone() is None


def test_a_forked_process_does_not_wait_for_threads_it_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = mixed()
    change = Visitor(lambda: changing(modules_of(model)))
    assert change.is_in()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        child = Visitor(lambda: reading(model))
        assert child.is_in()
        child.leave()
    change.leave()


class Watched:
    """Parts with the threads that are inside of each."""

    def __init__(self) -> None:
        self.parts = [mixed() for _ in range(4)]
        self.readers: list[set[int]] = [set() for _ in self.parts]
        self.changers: list[set[int]] = [set() for _ in self.parts]
        self.wrong: list[str] = []

    @contextmanager
    def visit(self, chosen: list[int], alone: bool) -> Iterator[None]:
        me = threading.get_ident()
        parts = [self.parts[part] for part in chosen]
        with changing(modules_of(*parts)) if alone else reading(*parts):
            inside = self.changers if alone else self.readers
            added = [part for part in chosen if me not in inside[part]]
            for part in added:
                inside[part].add(me)
            try:
                yield
                self._check(chosen, alone, me)
            finally:
                for part in added:
                    inside[part].discard(me)

    def _check(self, chosen: list[int], alone: bool, me: int) -> None:
        for part in chosen:
            others = self.changers[part] | (self.readers[part] if alone else set())
            if others - {me}:
                self.wrong.append(f"thread {me} met {others} in part {part}")
            if not alone and any(modes(self.parts[part])):
                self.wrong.append(f"part {part} in training mode while it was read")


def wander(watched: Watched, seed: int) -> None:
    """Two hundred sections, some within others; a reader does not begin to change."""
    noise = np.random.default_rng(seed)
    for _ in range(100):
        alone = bool(noise.random() < 0.3)
        chosen = noise.choice(4, noise.integers(1, 4), replace=False).tolist()
        with ExitStack() as stack:
            stack.enter_context(watched.visit(chosen, alone))
            inner = chosen if alone else noise.choice(4, 2, replace=False).tolist()
            if not alone and noise.random() < 0.5:
                inner = chosen[:1]
            stack.enter_context(watched.visit(inner, alone=False))


@pytest.mark.parametrize("seed", range(3))
def test_random_sections_never_meet_and_never_hang(
    seed: int, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-5)  # threads take turns often
    watched = Watched()
    before = modes(*watched.parts)
    threads = [
        threading.Thread(target=wander, args=(watched, 100 * seed + number), daemon=True)
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert watched.wrong == []
    assert modes(*watched.parts) == before

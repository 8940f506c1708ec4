"""Who seeds the random streams of the process has them alone, and gives them back."""

import os
import random
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from visiting import Visitor

from fusecomp._core.randomness import forked, keyed, own_streams, repeatable, seed, seed_for_file

CPU = torch.device("cpu")
SECTIONS: list[Callable[[], AbstractContextManager[None]]] = [own_streams, lambda: forked(CPU)]


def drawn() -> tuple[float, float, float, float]:
    # numpy keeps every second normal number for the next call.
    return random.gauss(), np.random.randn(), np.random.rand(), torch.randn(()).item()


@pytest.mark.parametrize("first", SECTIONS)
@pytest.mark.parametrize("second", SECTIONS)
def test_one_thread_at_a_time_seeds(
    first: Callable[[], AbstractContextManager[None]],
    second: Callable[[], AbstractContextManager[None]],
) -> None:
    one = Visitor(first)
    assert one.is_in()
    other = Visitor(second)
    assert other.waits()
    one.leave()
    assert other.is_in()
    other.leave()


def test_a_forked_process_does_not_wait_for_threads_it_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = Visitor(own_streams)
    assert parent.is_in()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        child = Visitor(own_streams)
        assert child.is_in()
        child.leave()
    parent.leave()


def stir() -> None:
    seed_for_file((), Path("stirred"))
    drawn()


def test_the_caller_s_streams_go_on_as_if_nothing_was_drawn() -> None:
    with own_streams():
        stir()
        expected = drawn(), drawn()
        stir()
        first = drawn()
        with pytest.raises(KeyboardInterrupt), own_streams():
            seed_for_file((1, 2), Path("a.png"))
            with forked(CPU):
                seed(CPU, 3)
                drawn()
            raise KeyboardInterrupt
        assert (first, drawn()) == expected


def test_numbers_are_a_function_of_key_and_name() -> None:
    def of(key: tuple[int, ...], name: str) -> tuple[float, ...]:
        with keyed(*key), repeatable(CPU, name):
            return drawn()

    with own_streams():
        stir()
        keys = [(0,), (1,), (0, 0), (0, 1), (2**40, 1)]
        numbers = {(key, name): of(key, name) for key in keys for name in ("a", "b", "\udcff")}
        assert len(set(numbers.values())) == 3 * len(keys)
        stir()
        assert all(of(*place) == number for place, number in numbers.items())


@pytest.mark.parametrize("key", [(), (0,), (3, 4), (2**32 - 1, 7), (2**32, 0), (2**70, 1, 5)])
def test_a_file_s_seed_is_that_of_numpy_s_seed_sequence(key: tuple[int, ...]) -> None:
    number = zlib.crc32(b"a.png")
    if key:
        number = int(np.random.SeedSequence((*key, number)).generate_state(1)[0])
    with own_streams():
        seed_for_file(key, Path("folder/a.png"))
        found = random.random(), np.random.rand(), torch.rand(()).item()
    torch_s = torch.rand((), generator=torch.Generator().manual_seed(number)).item()
    assert found == (random.Random(number).random(), np.random.RandomState(number).rand(), torch_s)


def test_without_a_key_the_caller_s_streams_go_on() -> None:
    with own_streams():
        stir()
        expected = drawn()
        stir()
        with repeatable(CPU, "a"):
            assert drawn() == expected

"""Random numbers as functions of what is known, so that nothing random must be stored."""

import os
import random
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

# What random numbers depend on, such as a seed and an epoch.
Key = Sequence[int]

_CPU, _WORD = torch.device("cpu"), 0xFFFF_FFFF
_CURRENT: ContextVar[Key] = ContextVar("key", default=())

# Held until the streams are as before. One for each process: a forked one would find its parent's
# in use, and for ever.
_LOCKS: dict[int, threading.RLock] = {}


@contextmanager
def forked(device: torch.device) -> Iterator[None]:
    """Give the caller's streams of torch back afterwards, as if nothing had been drawn."""
    # As torch.random.fork_rng, which takes twenty times as long.
    module = None if device.type == "cpu" else torch.get_device_module(device)
    process = os.getpid()
    with _LOCKS.get(process) or _LOCKS.setdefault(process, threading.RLock()):
        of_cpu = torch.get_rng_state()
        of_device = None if module is None else module.get_rng_state(device)
        try:
            yield
        finally:
            torch.set_rng_state(of_cpu)
            if module is not None:
                module.set_rng_state(of_device, device)


@contextmanager
def own_streams(device: torch.device = _CPU) -> Iterator[None]:
    """Do what ``forked`` does, for the generators of ``random`` and numpy too."""
    with forked(device):
        states = random.getstate(), np.random.get_state()
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def seed(device: torch.device, *numbers: int) -> None:
    """Seed torch's streams of the CPU and of the device from some numbers."""
    mixed = 0
    for number in numbers:
        # As in splitmix64, so that neighbouring numbers give unrelated streams; torch takes 64
        # bits, and the first constant is 2^64 / golden ratio.
        mixed = (mixed * 0x9E3779B97F4A7C15 + number) & 0xFFFF_FFFF_FFFF_FFFF
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFF_FFFF_FFFF_FFFF
        mixed >>= 1
    # Not torch.manual_seed: that would also seed devices whose streams are not kept.
    torch.default_generator.manual_seed(mixed)
    if device.type != "cpu":
        # manual_seed of a GPU's module is that of the current GPU, which may be another.
        state = torch.Generator(device).manual_seed(mixed).get_state()
        torch.get_device_module(device).set_rng_state(state, device)


def current_key() -> Key:
    """Return the key of the ``keyed`` block that this thread is in; empty outside of one."""
    return _CURRENT.get()


@contextmanager
def keyed(*key: int) -> Iterator[None]:
    """Make random numbers of evaluation and caching inside a function of the key.

    Outside, what ``load_image`` draws depends on the image alone, and an encoder or fusion that
    draws in evaluation mode goes on with the caller's streams.
    """
    outer = _CURRENT.set(key)
    try:
        yield
    finally:
        _CURRENT.reset(outer)


@contextmanager
def repeatable(device: torch.device, name: str) -> Iterator[None]:
    """In a ``keyed`` block, random numbers inside are a function of its key and the name."""
    key = current_key()
    if not key:
        yield
        return
    with own_streams(device):
        number = _one_of(key, _number_of(name))
        seed(device, number)
        _seed_all(number)
        yield


def seed_for_file(key: Key, path: Path) -> None:
    """Seed the streams that a ``load_image`` draws from; only for use in ``own_streams``."""
    number = _number_of(path.name)
    # Mixing takes as long as all else here, and a name alone needs none.
    _seed_all(_one_of(key, number) if key else number)


def _number_of(name: str) -> int:
    return zlib.crc32(name.encode(errors="surrogateescape"))


def _one_of(key: Key, number: int) -> int:
    """Return NumPy's ``SeedSequence((*key, number)).generate_state(1)``, in a third of the time."""
    words = _words(tuple(key))
    words[-1] = number
    word = int(np.random.SeedSequence(words).pool[0])
    # As ``generate_state`` does, which takes two microseconds.
    word = (word ^ 0x8B51F9DD) * (0x8B51F9DD * 0x58F38DED & _WORD) & _WORD
    return word ^ word >> 16


@lru_cache(maxsize=1)
def _words(key: Key) -> NDArray[np.uint32]:
    """Return the words of 32 bits that NumPy makes of a key, and room for one more."""
    parts = [part >> at & _WORD for part in key for at in range(0, part.bit_length() or 1, 32)]
    return np.array([*parts, 0], np.uint32)


def _seed_all(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.default_generator.manual_seed(number)

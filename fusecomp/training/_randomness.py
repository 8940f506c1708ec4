"""Random numbers as a function of seed, step and place, so that nothing random must be stored."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["deterministic", "forked", "seed"]


@contextmanager
def forked(device: torch.device) -> Iterator[None]:
    """The caller's own streams go on afterwards as if nothing had been drawn."""
    devices = [] if device.type == "cpu" else [device]
    accelerator = "cuda" if device.type == "cpu" else device.type
    with torch.random.fork_rng(devices, device_type=accelerator):
        yield


def seed(device: torch.device, *numbers: int) -> None:
    """Seed the streams of the CPU and of the device from some numbers."""
    mixed = 0
    for number in numbers:
        mixed = _mixed(mixed, number)
    # Not torch.manual_seed: that would also seed devices whose streams are not kept.
    torch.default_generator.manual_seed(mixed)
    if device.type != "cpu":
        # manual_seed of a GPU's module is that of the current GPU, which may be another.
        state = torch.Generator(device).manual_seed(mixed).get_state()
        torch.get_device_module(device).set_rng_state(state, device)


def _mixed(first: int, second: int) -> int:
    """One number from two; neighbouring ones give unrelated streams."""
    # torch takes 64 bits; the constant is 2^64 / golden ratio, as in splitmix64.
    mixed = (first * 0x9E3779B97F4A7C15 + second) & 0xFFFF_FFFF_FFFF_FFFF
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFF_FFFF_FFFF_FFFF
    return mixed >> 1


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Only algorithms that repeat to the bit inside, if enabled; as before afterwards."""
    if not enabled:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    # cuBLAS repeats its results only with a workspace of its own.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)

"""Random numbers as a function of seed, step and place, so that nothing random must be stored."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["forked", "seed"]


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

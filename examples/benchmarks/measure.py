"""Time and memory of several ways to do the same, for the benchmarks beside this file."""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def interleaved(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each way, all in turns; the first turn is the warm-up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def growths(function: Callable[..., float], *arguments: tuple[object, ...]) -> list[float]:
    """What ``function`` returns for each tuple of arguments, in a fresh process each."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.starmap(function, arguments, chunksize=1)


def growth(work: Callable[[], object]) -> float:
    """The largest growth of this process while ``work`` runs, in MiB; Linux only."""
    # Forget the height that imports and warm-up have reached.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """The resident memory now (VmRSS) or at its height (VmHWM), in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024

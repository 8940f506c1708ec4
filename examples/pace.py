"""Seconds of one step, from the steps of a short run; `rehearsal.py` uses it."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import fusecomp as fc

# Seconds on the wall, seconds of this process on all its cores, and the rows that they took.
Lap = tuple[float, float, int]


class Pace(NamedTuple):
    """Seconds of one row, step or validation, and the number of laps that they are a median of."""

    seconds: float
    cpu_seconds: float
    measured: int


def pace(laps: Sequence[Lap], together: int = 1) -> Pace:
    """Return the median over every ``together`` laps in a row, by the rows that they took.

    Batches that many processes load arrive in bursts, so that only runs of as many are steady.
    """
    together = min(together, len(laps))
    runs = [laps[start : start + together] for start in range(len(laps) - together + 1)]
    wall, cpu = (
        statistics.median(
            sum(lap[kind] for lap in run) / sum(lap[2] for lap in run) for run in runs
        )
        for kind in (0, 1)
    )
    return Pace(wall, cpu, len(laps))


class Stopwatch:
    """Returns laps."""

    def __init__(self) -> None:
        self._last = time.perf_counter(), time.process_time()

    def lap(self, rows: int = 1) -> Lap:
        """Return the time since the last lap."""
        now = time.perf_counter(), time.process_time()
        wall, cpu = (end - begin for end, begin in zip(now, self._last, strict=True))
        self._last = now
        return wall, cpu, rows


class Clock:
    """Times a training as a callback; its laps are kept in the checkpoints.

    The first step of each epoch is kept apart, as it prepares the epoch. The first of a trainer
    and ``warm_up`` more of each epoch are warm-up.
    """

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        names = ("step", "first step", "warm-up", "validation", "saving", "resuming")
        self.laps: dict[str, list[Lap]] = {name: [] for name in names}
        self._watch = Stopwatch()
        self._best: Lap = (0.0, 0.0, 1)
        self._step = -1  # of the epoch; -1 is the trainer's first

    def on_start(self, trainer: fc.Trainer) -> None:
        """Training begins, or goes on."""
        lap = self._watch.lap()
        if trainer.steps:
            self.laps["resuming"].append(lap)

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        """A step has ended, with its value on the host."""
        name = "step" if self._step > self._warm_up else "warm-up"
        self.laps["first step" if self._step == 0 else name].append(self._watch.lap())
        self._step = max(self._step, 0) + 1

    def steps(self) -> dict[str, list[Lap]]:
        """Return the laps of steps and of first ones; the nearest kind where there are none."""
        step, first, warm = (self.laps[name] for name in ("step", "first step", "warm-up"))
        return {"step": step or first or warm, "first step": first or step or warm}

    def on_evaluation(self, trainer: fc.Trainer, evaluation: fc.Evaluation) -> None:
        """A validation has ended."""
        self.laps["validation"].append(self._watch.lap())

    def on_epoch(self, trainer: fc.Trainer, record: Mapping[str, float]) -> None:
        """An epoch has ended; since its validation the best weights were written."""
        self._best = self._watch.lap()
        self._step = 0

    def on_checkpoint(self, trainer: fc.Trainer, path: Path) -> None:
        """A checkpoint was written."""
        wall, cpu, _ = self._watch.lap()
        self.laps["saving"].append((self._best[0] + wall, self._best[1] + cpu, 1))

    def state_dict(self) -> dict[str, list[Lap]]:
        """Return the laps, for the checkpoint."""
        return self.laps

    def load_state_dict(self, laps: dict[str, list[Lap]]) -> None:
        """Go on after the laps of a run that was stopped."""
        self.laps = laps


class Enough(Exception):
    """Ends an extraction of which enough is measured."""


class TimedEncoder(nn.Module):
    """An encoder that times its batches, and raises ``Enough`` after ``wanted`` steady ones.

    Until ``warm_up`` batches are encoded, loading processes may have others ready. A batch after
    ``WARM_SECONDS`` is steady all the same: then it is the encoder that takes the time.
    """

    WARM_SECONDS = 30

    def __init__(self, encoder: Any, warm_up: int, wanted: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.load_image = encoder.load_image
        self.laps: list[Lap] = []
        self._warm_up, self._wanted = warm_up, wanted
        self._watch = Stopwatch()

    def encode_image(self, images: Tensor) -> Tensor:
        """Encode images and note the time."""
        return self._timed(self.encoder.encode_image, images)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encode texts and note the time."""
        return self._timed(self.encoder.encode_text, texts)

    def steady(self) -> list[Lap]:
        """Return the laps behind the warm-up; the others if there are no more."""
        return self.laps[self._skipped() :] or self.laps[1:] or self.laps

    def _skipped(self) -> int:
        begins = accumulate((seconds for seconds, _, _ in self.laps), initial=0.0)
        early = sum(begin < self.WARM_SECONDS for begin in begins)
        return max(1, min(self._warm_up, early))

    def _timed(self, encode: Callable[[Any], Tensor], inputs: Any) -> Tensor:
        features = encode(inputs)
        if features.is_cuda:
            torch.cuda.synchronize(features.device)
        self.laps.append(self._watch.lap(len(inputs)))
        if len(self.laps) - self._skipped() >= self._wanted:
            raise Enough
        return features

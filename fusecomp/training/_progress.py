import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

# The numbers of one epoch by name.
Record = Mapping[str, float]


class NonFiniteError(ValueError):
    """A loss or gradient that is NaN or infinite; the message says where. Nothing was updated."""


class Outcome(NamedTuple):
    """The result of a step: the loss without its graph, its value, and the gradient's norm.

    The value is known already; asking the tensor for it would wait for the update.
    """

    loss: Tensor
    value: float = math.nan
    gradient_norm: float = math.nan

    @property
    def updated(self) -> bool:
        """Whether the weights have changed."""
        return math.isfinite(self.gradient_norm)


@dataclass(slots=True)
class Sums:
    """Sums over the steps of the epoch under way."""

    loss: float = 0.0
    gradient_norm: float = 0.0
    steps: int = 0
    skipped: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count a step."""
        if not outcome.updated:
            self.skipped += 1
            return
        self.loss += outcome.value
        self.gradient_norm += outcome.gradient_norm
        self.steps += 1

    def means(self) -> dict[str, float]:
        """Return the means over the steps, if there were any, and the number of skipped ones."""
        means: dict[str, float] = {}
        if self.steps:
            means = {
                "loss": self.loss / self.steps,
                "gradient_norm": self.gradient_norm / self.steps,
            }
        return {**means, "skipped": self.skipped} if self.skipped else means


@dataclass(slots=True)
class Progress:
    """How far a stage has come.

    Args:
        epoch: epochs that are complete.
        batch: steps of the epoch under way.
        steps: steps in all.
        sums: over the epoch under way.
        history: one record for each complete epoch.
    """

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    sums: Sums = field(default_factory=Sums)
    history: list[Record] = field(default_factory=list)

    def end_epoch(self) -> None:
        """Begin the next epoch."""
        self.batch, self.sums = 0, Sums()

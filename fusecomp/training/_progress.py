import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

# The numbers of one epoch by name.
Record = Mapping[str, float]


class NonFiniteError(ValueError):
    """A loss or gradient that is NaN or infinite; the message says where. Nothing was updated."""


class Outcome(NamedTuple):
    """The result of a step."""

    # Without its graph; asking it for its value would wait for the update.
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
        sums = {"loss": self.loss, "gradient_norm": self.gradient_norm} if self.steps else {}
        means = {name: value / self.steps for name, value in sums.items()}
        return {**means, "skipped": self.skipped} if self.skipped else means


@dataclass(slots=True)
class Progress:
    """Complete epochs, steps of the epoch under way and in all; a record for each epoch."""

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    sums: Sums = field(default_factory=Sums)
    history: list[Record] = field(default_factory=list)

    def latest(self, metrics: Sequence[str]) -> str:
        """Return the last epoch's loss, and the deciding metric when it was last computed."""
        if not self.history:
            return ""
        shown = [("loss", self.history[-1].get("loss"))]
        for name in metrics[:1]:
            shown.append((name, next((r[name] for r in self.history[::-1] if name in r), None)))
        values = ", ".join(f"{name} {value:.4g}" for name, value in shown if value is not None)
        return f"epoch {self.epoch}: {values}" if values else ""

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

__all__ = ["NonFiniteError", "Outcome", "Sums"]


class NonFiniteError(ValueError):
    """A loss or gradient that is NaN or infinite; the message says where. Nothing was updated."""


class Outcome(NamedTuple):
    """What a step gives: the loss without its graph, its value, and the gradient's length.

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
    """Sums over the steps of an epoch that have been made so far."""

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
        """The means over the steps, if there are such, and how many were left out, if any."""
        means: dict[str, float] = {}
        if self.steps:
            means = {name: getattr(self, name) / self.steps for name in ("loss", "gradient_norm")}
        return {**means, "skipped": self.skipped} if self.skipped else means

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in self.__slots__}

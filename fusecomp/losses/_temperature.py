import math

import torch
from torch import Tensor, nn

from fusecomp._core.checks import number, positive


class LearnableTemperature(nn.Module):
    """A temperature T that a loss learns, in place of a number.

    The parameter is ``log_scale = log(1 / T)``, a scalar, which weight decay leaves out. A step
    past the limit is taken back before the next use, so that the gradient stays alive there.

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
        ICML 2021: start and limit, https://arxiv.org/abs/2103.00020

    Args:
        start: T at first; 0.07 as published.
        lowest: T does not fall below it; 0.01 as published, 0 for no limit.

    Raises:
        ValueError: unless 0 <= lowest <= start, start > 0, both finite.

    Example:
        >>> from fusecomp.losses import InfoNCE
        >>> loss = InfoNCE(LearnableTemperature(start=0.07))
        >>> round(loss.temperature.value().item(), 4)
        0.07
    """

    def __init__(self, start: float = 0.07, lowest: float = 0.01) -> None:
        super().__init__()
        self.start = positive("start", start)
        self.lowest = number("lowest", lowest)
        if not 0 <= self.lowest <= self.start:
            raise ValueError(f"lowest must be in [0, start={self.start}], got {self.lowest}")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(self.start)))

    def value(self) -> Tensor:
        """Return T, a scalar."""
        return 1 / self.scale()

    def scale(self) -> Tensor:
        """Return 1 / T, a scalar."""
        if self.lowest > 0:
            with torch.no_grad():
                self.log_scale.clamp_(max=-math.log(self.lowest))
        return self.log_scale.exp()

    def extra_repr(self) -> str:
        """Show the settings, not the present value."""
        return f"start={self.start}, lowest={self.lowest}"


def check_temperature(temperature: float | LearnableTemperature) -> float | LearnableTemperature:
    """Return the temperature; ValueError unless it learns or is positive and finite."""
    if isinstance(temperature, LearnableTemperature):
        return temperature
    return positive("temperature", temperature)


def scale_of(temperature: float | LearnableTemperature) -> float | Tensor:
    """Return 1 / T; a scalar tensor where it learns."""
    return temperature.scale() if isinstance(temperature, LearnableTemperature) else 1 / temperature

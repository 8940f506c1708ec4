from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["WeightAverage"]


class WeightAverage:
    """The exponential moving average of weights: after each step, decay x old + (1 - decay) x new.

    Args:
        parameters: what is averaged, by name; the average begins with their values.
        decay: in [0, 1).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters = parameters
        self._average = get_ema_multi_avg_fn(decay)
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the current weights."""
        current = [parameter.detach() for parameter in self._parameters.values()]
        self._average(list(self.values.values()), current, 0)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside, its own again afterwards."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self.put()
        try:
            yield
        finally:
            self._copy(own)

    def put(self) -> None:
        """Give the model the averaged weights for good."""
        self._copy(self.values)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Go on from saved values."""
        for name, value in self.values.items():
            value.copy_(values[name])

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fusecomp.distributed import local, shard_like, whole


class WeightAverage:
    """The exponential moving average of weights: after each step, decay x old + (1 - decay) x new.

    It begins with the present values.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters = parameters
        self._average = get_ema_multi_avg_fn(decay)
        self._values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        # Each process averages its part of sharded weights.
        current = [local(parameter.detach()) for parameter in self._parameters.values()]
        self._average([local(value) for value in self._values.values()], current, 0)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights inside, and its own again afterwards."""
        current = {name: p.detach().clone() for name, p in self._parameters.items()}
        self.put()
        try:
            yield
        finally:
            self._copy(current)

    def put(self) -> None:
        """Give the model the averaged weights for good."""
        self._copy(self._values)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])

    def state_dict(self) -> dict[str, Tensor]:
        return {name: whole(value) for name, value in self._values.items()}

    def load_state_dict(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self._values.items():
            value.copy_(shard_like(values[name], value))

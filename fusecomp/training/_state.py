from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from fusecomp.model import ComposedEncoder

__all__ = ["StageState"]


class StageState:
    """Which parameters need gradients in a stage, and which modules act as in training.

    Dropout acts in a fusion that learns. In the encoder it acts, and BatchNorm counts, only with
    ``encoder_mode="train"``, and there only beside parameters that learn.
    """

    def __init__(
        self, model: ComposedEncoder, learning: Iterable[nn.Parameter], encoder_mode: str
    ) -> None:
        chosen = {id(parameter) for parameter in learning}
        self._gradients = [(p, id(p) in chosen) for p in model.parameters()]
        self._modes: list[tuple[nn.Module, bool]] = []
        for part, active in ((model.encoder, encoder_mode == "train"), (model.fusion, True)):
            if isinstance(part, nn.Module):
                self._modes += _modes(part, chosen, active)

    def apply(self) -> None:
        """Put the model into this state; cheap where it is in it already."""
        for parameter, learns in self._gradients:
            if parameter.requires_grad is not learns:
                parameter.requires_grad = learns
        for module, mode in self._modes:
            if module.training is not mode:
                module.training = mode

    def acting(self) -> list[nn.Module]:
        """The modules that act as in training."""
        return [module for module, mode in self._modes if mode]

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Give the model back as it was, also after an error."""
        gradients = [(parameter, parameter.requires_grad) for parameter, _ in self._gradients]
        modes = [(module, module.training) for module, _ in self._modes]
        try:
            yield
        finally:
            for parameter, needed in gradients:
                parameter.requires_grad = needed
            for module, mode in modes:
                module.training = mode


def _modes(module: nn.Module, chosen: set[int], active: bool) -> list[tuple[nn.Module, bool]]:
    parameters = [id(parameter) for parameter in module.parameters()]
    frozen = bool(parameters) and not chosen.intersection(parameters)
    active = active and not frozen
    below = (_modes(child, chosen, active) for child in module.children())
    return [(module, active), *(pair for pairs in below for pair in pairs)]

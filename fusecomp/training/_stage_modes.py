import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fusecomp._core.reading import changing, modules_of, set_mode
from fusecomp.distributed import get_world_size
from fusecomp.training._learning_parameters import SET_BY_TRAINERS, Stage, is_free


class StageModes:
    """The parameters that need gradients in a stage, and the modules that act as in training.

    Dropout acts in a fusion that learns. In the encoder it acts, and BatchNorm counts, only with
    ``encoder_mode="train"``, and there only next to parameters that learn. A loss always acts, as
    a queue is filled in training alone.
    """

    def __init__(self, stage: Stage) -> None:
        model, loss, config = stage.model, stage.loss, stage.config
        self._config = config
        chosen = {id(parameter) for parameter in stage.learning.values()}
        self._gradients = [(p, id(p) in chosen) for p in model.parameters()]
        encoder = _modes(model.encoder, chosen, config.encoder_mode == "train")
        fusion = _modes(model.fusion, chosen, True)
        # A teacher that is frozen inside of a loss stays as it is.
        acting = {id(p) for p in stage.loss_module.parameters() if p.requires_grad}
        self._modes = [*encoder, *fusion, *_modes(loss, acting, True)]
        self._modules = modules_of(model, loss)
        parts = {"encoder": encoder, "fusion": fusion}
        self._acting = {name: [m for m, acts in pairs if acts] for name, pairs in parts.items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the model into this state; no other thread reads or changes it inside."""
        with self.alone():
            # Cheap where it is in the state already.
            for parameter, learns in self._gradients:
                if parameter.requires_grad is not learns:
                    SET_BY_TRAINERS[parameter] = learns, is_free(parameter)
                    parameter.requires_grad = learns
            for module, mode in self._modes:
                set_mode(module, mode)
            yield

    def alone(self) -> AbstractContextManager[None]:
        """Let no other thread read or change the model or the loss inside."""
        return changing(self._modules)

    def buffers(self) -> list[Tensor]:
        """Return the buffers that modules in training mode may change, as BatchNorm does."""
        modules = chain.from_iterable(self._acting.values())
        return [buffer for module in modules for buffer in module.buffers(recurse=False)]

    def warn_of_batchnorm(self) -> None:
        """Warn of BatchNorm that would see a part of each batch only."""
        # The parts of a batch meet before the fusion, those of the processes behind it.
        many = get_world_size() > 1
        inexact = {"encoder": many or self._config.micro_batch_size is not None, "fusion": many}
        for part, wrong in inexact.items():
            if wrong and any(isinstance(module, _BatchNorm) for module in self._acting[part]):
                way_out = "encoder_mode='eval', or " if part == "encoder" else ""
                warnings.warn(
                    f"BatchNorm of the {part} learns its statistics from parts of a batch here, "
                    "so that the gradient is not that of the whole batch: use "
                    f"{way_out}another norm",
                    stacklevel=3,
                )

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Give modes and ``requires_grad`` back as they were, also after an error."""
        with self.alone():
            gradients = [(p, p.requires_grad, SET_BY_TRAINERS.get(p)) for p, _ in self._gradients]
            modes = [(module, module.training) for module, _ in self._modes]
        try:
            yield
        finally:
            with self.alone():
                for parameter, needed, already_set in gradients:
                    if not parameter.is_inference():  # torch would not let it need gradients again
                        parameter.requires_grad = needed
                    SET_BY_TRAINERS.pop(parameter, None)
                    if already_set:
                        SET_BY_TRAINERS[parameter] = already_set
                for module, mode in modes:
                    set_mode(module, mode)


def _modes(module: object, chosen: set[int], active: bool) -> list[tuple[nn.Module, bool]]:
    if not isinstance(module, nn.Module):
        return []
    parameters = [id(parameter) for parameter in module.parameters()]
    frozen = bool(parameters) and not chosen.intersection(parameters)
    active = active and not frozen
    below = (_modes(child, chosen, active) for child in module.children())
    return [(module, active), *(pair for pairs in below for pair in pairs)]

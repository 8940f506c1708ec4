from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fusecomp.distributed import get_rank
from fusecomp.training._trainer import Run, Trainer


class TqdmBar:
    """Shows the steps on a bar of tqdm, in place of the line that training shows by itself.

    Args:
        bar: ``tqdm.tqdm(unit="step")``, or that of ``tqdm.notebook`` or ``tqdm.rich``. Of many
            processes the first shows it; the others may give None.

    Example:
        >>> bar = TqdmBar(None)  # pass ``callbacks=[bar]`` to ``Trainer``
    """

    shows_progress = True

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def on_start(self, trainer: Trainer) -> None:
        """Set the length; what was done before a resume counts."""
        if get_rank() == 0:
            self._bar.reset(total=trainer.total_steps)
            self._bar.update(trainer.steps)

    def on_step(self, trainer: Trainer, loss: Tensor) -> None:
        """Count a step."""
        if get_rank() == 0:
            self._bar.update()

    def on_epoch(self, trainer: Trainer, record: Mapping[str, float]) -> None:
        """Show the numbers of the epoch."""
        if get_rank() == 0:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in record.items()})

    def on_end(self, trainer: Trainer, run: Run) -> None:
        """Show the end; the bar stays open, as another stage may follow."""
        if get_rank() == 0:
            self._bar.refresh()


class _Log:
    """Base of logs, which the first process writes; counts steps over all stages that it sees."""

    _before = 0

    def __init__(self, every_steps: int) -> None:
        self._every_steps = every_steps

    def _write(self, values: Mapping[str, float], step: int) -> None:
        raise NotImplementedError

    def on_step(self, trainer: Trainer, loss: Tensor) -> None:
        """Send the loss, as ``step/loss``."""
        if get_rank() == 0 and trainer.steps % self._every_steps == 0:
            self._write({"step/loss": loss.item()}, self._before + trainer.steps)

    def on_epoch(self, trainer: Trainer, record: Mapping[str, float]) -> None:
        """Send loss, learning rate and metrics under their own names."""
        if get_rank() == 0:
            self._write(record, self._before + trainer.steps)

    def on_end(self, trainer: Trainer, run: Run) -> None:
        """Let the next stage go on from here."""
        self._before += trainer.steps


class TensorBoardLog(_Log):
    """Writes the loss of steps and the numbers of epochs for TensorBoard.

    Args:
        writer: ``torch.utils.tensorboard.SummaryWriter(folder)``. Of many processes the first
            writes; the others may give None, as each writer makes a file.
        every_steps: steps from one loss to the next; asking a GPU for one waits for it.
    """

    def __init__(self, writer: Any, every_steps: int = 10) -> None:
        super().__init__(every_steps)
        self._writer = writer

    def _write(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def on_end(self, trainer: Trainer, run: Run) -> None:
        """Write what is still in memory."""
        super().on_end(trainer, run)
        if get_rank() == 0:
            self._writer.flush()


class WandbLog(_Log):
    """Sends the settings, the loss of steps and the numbers of epochs to Weights & Biases.

    Args:
        run: ``wandb.init(...)``. Of many processes the first sends; the others may give None.
        every_steps: steps from one loss to the next; asking a GPU for one waits for it.
    """

    def __init__(self, run: Any, every_steps: int = 10) -> None:
        super().__init__(every_steps)
        self._run = run

    def _write(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def on_start(self, trainer: Trainer) -> None:
        """Send the settings, and the axis ``step``: a resume repeats some steps."""
        if get_rank() == 0:
            self._run.define_metric("*", step_metric="step")
            self._run.config.update(trainer.config.to_dict(), allow_val_change=True)

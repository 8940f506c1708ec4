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
        >>> bar = TqdmBar(None)  # pass ``callbacks=[bar]`` to ``fit``
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


class _Steps:
    """Counts steps over all stages that one object sees."""

    _before = 0

    def _step(self, trainer: Trainer) -> int:
        """Return the number of the last step."""
        return self._before + trainer.steps

    def on_end(self, trainer: Trainer, run: Run) -> None:
        """Let the next stage go on from here."""
        self._before += trainer.steps


class TensorBoardLog(_Steps):
    """Writes the loss of steps and the numbers of epochs for TensorBoard.

    Args:
        writer: ``torch.utils.tensorboard.SummaryWriter(folder)``. Of many processes the first
            writes; the others may give None, as each writer makes a file.
        every_steps: steps from one loss to the next; asking a GPU for one waits for it.
    """

    def __init__(self, writer: Any, every_steps: int = 10) -> None:
        self._writer = writer
        self._every_steps = every_steps

    def on_step(self, trainer: Trainer, loss: Tensor) -> None:
        """Send the loss, as ``step/loss``."""
        if get_rank() == 0 and trainer.steps % self._every_steps == 0:
            self._writer.add_scalar("step/loss", loss.item(), self._step(trainer))

    def on_epoch(self, trainer: Trainer, record: Mapping[str, float]) -> None:
        """Send loss, learning rate and metrics under their own names, by step."""
        if get_rank() == 0:
            for name, value in record.items():
                self._writer.add_scalar(name, value, self._step(trainer))

    def on_end(self, trainer: Trainer, run: Run) -> None:
        """Write what is still in memory."""
        super().on_end(trainer, run)
        if get_rank() == 0:
            self._writer.flush()


class WandbLog(_Steps):
    """Sends the settings, the loss of steps and the numbers of epochs to Weights & Biases.

    Args:
        run: ``wandb.init(...)``. Of many processes the first sends; the others may give None.
        every_steps: as in ``TensorBoardLog``.
    """

    def __init__(self, run: Any, every_steps: int = 10) -> None:
        self._run = run
        self._every_steps = every_steps

    def on_start(self, trainer: Trainer) -> None:
        """Send the settings, and the axis ``step``: a resume repeats some steps."""
        if get_rank() == 0:
            self._run.define_metric("*", step_metric="step")
            self._run.config.update(trainer.config.to_dict(), allow_val_change=True)

    def on_step(self, trainer: Trainer, loss: Tensor) -> None:
        """Send the loss, as ``step/loss``."""
        if get_rank() == 0 and trainer.steps % self._every_steps == 0:
            self._run.log({"step/loss": loss.item(), "step": self._step(trainer)})

    def on_epoch(self, trainer: Trainer, record: Mapping[str, float]) -> None:
        """Send loss, learning rate and metrics under their own names."""
        if get_rank() == 0:
            self._run.log({**record, "step": self._step(trainer)})

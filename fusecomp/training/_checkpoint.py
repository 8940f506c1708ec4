"""The content of a checkpoint: taken from a training, checked against it, and put back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from fusecomp.distributed import shard_like, whole
from fusecomp.model import ComposedEncoder
from fusecomp.training._best_weights import BestWeights
from fusecomp.training._callbacks import Callbacks
from fusecomp.training._checkpoint_checks import (
    WrongEntry,
    check_history,
    check_like,
    check_names,
    check_optimizer,
    check_own_bytes,
    checked,
)
from fusecomp.training._progress import Progress, Sums
from fusecomp.training._stage_data import StageData
from fusecomp.training._step import Step
from fusecomp.training._weight_average import WeightAverage
from fusecomp.training._workdir import Saved, Weights

_OptimizerState = dict[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class StageState:
    """All that changes while a stage trains."""

    model: ComposedEncoder
    step: Step
    progress: Progress
    average: WeightAverage | None
    best: BestWeights
    callbacks: Callbacks
    data: StageData

    def weights(self) -> Weights:
        """Copy what training changes: learning weights, and buffers such as BatchNorm's."""
        frozen = {name for name, _ in self.model.named_parameters()} - set(self.step.parameters)
        of_model = {n: value for n, value in self.model.state_dict().items() if n not in frozen}
        of_loss = self.step.loss_module.state_dict()
        return {"model": _copies(of_model), "loss": _copies(of_loss)}

    def put_weights(self, weights: Weights) -> None:
        """Put copies of ``weights`` back, after they were checked."""
        present = self.model.state_dict()
        saved = {name: shard_like(value, present[name]) for name, value in weights["model"].items()}
        self.model.load_state_dict(saved, strict=False)
        self.step.loss_module.load_state_dict(weights["loss"])

    def state_dict(self) -> Saved:
        return self._position() | {
            "history": self.progress.history,
            "optimizer": _optimizer_state(self.step),
            "callbacks": self.callbacks.states(),
        }

    def _position(self) -> Saved:
        """Copy what has the same form in every checkpoint of this training."""
        numbers = {n: v for n, v in asdict(self.progress).items() if n != "history"}
        return numbers | {
            "weights": self.weights(),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": self.step.scaler.state_dict(),
        }

    def check(self, path: Path, saved: Saved) -> None:
        """Raise ValueError on what this training has not written; nothing is restored yet."""
        like = self._position()
        with checked(path):
            others = ("format", "identity", "history", "optimizer", "callbacks")
            check_names("", saved, (*like, *others))
            check_like("", {name: saved[name] for name in like}, like)
            epoch, batch, steps = saved["epoch"], saved["batch"], saved["steps"]
            in_epoch = self.data.batches_per_epoch
            if batch > in_epoch or steps != epoch * in_epoch + batch:
                raise WrongEntry(f"batch {batch} of epoch {epoch} is not step {steps}")
            check_history(saved["history"], epoch)
            for name in self.best.names(saved["history"]):
                if not (path.parent / "best" / name).is_file():
                    raise WrongEntry(f"history says that best/{name} is needed, which is missing")
            self.callbacks.check(path, saved["callbacks"])
            adam = isinstance(self.step.optimizer, torch.optim.Adam | torch.optim.AdamW)
            check_optimizer(saved["optimizer"], self.step.parameters, adam, steps)
            check_own_bytes({name: saved[name] for name in ("weights", "average", "optimizer")})

    def load_state_dict(self, saved: Saved) -> None:
        """Put what ``state_dict`` returned back, after ``check``."""
        self.put_weights(saved["weights"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        _restore_optimizer(self.step, saved["optimizer"])
        self.step.scaler.load_state_dict(saved["scaler"])
        for name in ("epoch", "batch", "steps", "history"):
            setattr(self.progress, name, saved[name])
        self.progress.sums = Sums(**saved["sums"])
        self.callbacks.restore(saved["callbacks"])


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole(value).detach().to("cpu", copy=True) for name, value in tensors.items()}


def _optimizer_state(step: Step) -> _OptimizerState:
    """Return the optimiser's state by the names of parameters, whole on every process."""
    return {
        name: {
            entry: whole(value) if isinstance(value, Tensor) else value
            for entry, value in step.optimizer.state.get(parameter, {}).items()
        }
        for name, parameter in step.parameters.items()
    }


def _restore_optimizer(step: Step, state: _OptimizerState) -> None:
    restored = step.optimizer.state_dict()
    members = (p for group in step.optimizer.param_groups for p in group["params"])
    numbers = {parameter: number for number, parameter in enumerate(members)}
    for name, values in state.items():
        if not values:  # of a parameter that has had no gradient yet
            continue
        like = step.parameters[name]
        restored["state"][numbers[like]] = {
            # The count of steps has no part on each process.
            entry: shard_like(v, like) if isinstance(v, Tensor) and v.shape == like.shape else v
            for entry, v in values.items()
        }
    step.optimizer.load_state_dict(restored)

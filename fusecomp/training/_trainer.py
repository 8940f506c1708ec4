import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fusecomp._core.abilities import lookups_of, training_image_ids
from fusecomp._core.checks import as_path, require
from fusecomp._core.devices import autocast, device_of, require_one_device
from fusecomp._core.progress import progress
from fusecomp._core.randomness import keyed
from fusecomp.caching import PartlyCachedEncoder
from fusecomp.distributed import (
    broadcast,
    gather_objects,
    get_world_size,
    is_sharded,
    join,
    plain_class,
    prepare,
)
from fusecomp.evaluation import default_metric, evaluate, metric_names
from fusecomp.images import image_paths
from fusecomp.model import ComposedEncoder
from fusecomp.training._average import WeightAverage
from fusecomp.training._batches import Epochs, plan
from fusecomp.training._best import BestWeights
from fusecomp.training._callbacks import Callbacks
from fusecomp.training._checkpoint import (
    check_best,
    check_history,
    check_like,
    check_optimizer,
    check_own_bytes,
    collect,
    collect_optimizer,
    optimizer_entries,
    restore,
    restore_optimizer,
)
from fusecomp.training._identity import describe_run
from fusecomp.training._learning import frozen_sides, learning_parameters
from fusecomp.training._outcome import NonFiniteError, Sums
from fusecomp.training._randomness import deterministic
from fusecomp.training._stage import StageConfig
from fusecomp.training._state import StageState
from fusecomp.training._step import Step
from fusecomp.training._workdir import Workdir
from fusecomp.types import Batch, Dataset, Encoder, Loss

__all__ = ["Run", "Trainer", "fit"]


@dataclass(frozen=True, slots=True)
class Run:
    """What a training gives.

    Args:
        model: the trained model, with the best weights (the last ones without validation).
        metrics: of these weights: ``epoch``, ``loss``, and those of the validation.
        history: the same for every epoch, with ``lr`` and the mean ``gradient_norm``.
        path: the workdir, or None.
        stage1: the first stage's run, if this is the second of two.
    """

    model: ComposedEncoder
    metrics: Mapping[str, float]
    history: Sequence[Mapping[str, float]]
    path: Path | None
    stage1: "Run | None" = None

    def __repr__(self) -> str:
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"Run({values}; of {len(self.history)} epochs; {self.path or 'no workdir'})"


class Trainer:
    """Trains what ``config.trainable`` names, in place; one loop for every stage.

    ``run()`` does it all. For a loop of your own, feed ``step`` with
    ``batches(train, trainer.encoder, config, epoch)``.

    Args:
        model: the encoder and fusion to train, on the device to train on.
        train: the triplets to learn from.
        loss: any callable ``loss(query, target) -> scalar``; if it accepts the keywords
            ``target_ids`` or ``reference_ids`` (int64 [B], positions in ``train.image_ids``),
            it gets them.
        config: the settings.
        validation: is evaluated to pick the best weights; without it the last ones stay.
        workdir: for checkpoints and the log. The same call again resumes, and ends with the
            same weights to the bit (on a CPU) as a run that never stopped; with a constant
            schedule, more ``epochs`` go on where it ended. Settings of all parts, data and frozen
            weights are compared; the initial weights of what learns are not. Of many processes,
            under torchrun, the first writes; all must see the folder.
        callbacks: any objects with some of the hooks ``on_start(trainer)``, ``on_step(trainer,
            loss)``, ``on_evaluation(trainer, evaluation)``, ``on_epoch(trainer, record)``,
            ``on_checkpoint(trainer, path)`` and ``on_end(trainer, run)``, called on every
            process. What ``state_dict()`` of one returns is kept in the checkpoint and given to
            its ``load_state_dict``. One with ``shows_progress = True`` replaces the progress line.
            ``TqdmBar``, ``TensorBoardLog`` and ``WandbLog`` are ready.

    Raises:
        TypeError: if an argument is something else, as when two are swapped.
        ValueError: if ``config.trainable`` names nothing that can learn, or only what you have
            frozen, weights that learn are in half precision, the metric is unknown, the
            triplets make no batch, the precision does not fit the device, or encoder and fusion
            are on different devices, or FSDP2 has sharded the whole model.
    """

    def __init__(
        self,
        model: ComposedEncoder,
        train: Dataset,
        loss: Loss,
        config: StageConfig,
        validation: Dataset | None = None,
        workdir: str | Path | None = None,
        callbacks: Iterable[Any] = (),
    ) -> None:
        _require_kinds(model, train, loss, config, validation)
        join()
        prepare(model)
        self.model = model
        self.train = train
        self.loss = loss
        self.config = config
        self.validation = validation
        self.epoch = self.batch = self.steps = 0
        self._device = device_of(model)
        self._refuse_what_cannot_be(config)
        self._metrics = self._chosen_metrics()
        nobody_twice = torch.arange(len(train))
        self._batches_per_epoch = len(plan(len(train), config, 0, nobody_twice))
        self._learning = learning_parameters(model, config)
        self._refuse_sparse_gradients()
        self._state = StageState(model, self._learning.values(), loss, config.encoder_mode)
        self._warn_of_batchnorm()
        if isinstance(loss, nn.Module):
            loss.to(self._device)
        # What one process has drawn at random counts for all. Cached features are no state.
        parts = [part for part in (model, loss) if isinstance(part, nn.Module)]
        with self._state.alone():
            broadcast(value for part in parts for value in part.state_dict().values())
        self._step = Step(model, self._learning, loss, config, self._device, self._state.buffers())
        self._callbacks = Callbacks(callbacks)
        self._sums = Sums()
        self._history: list[dict[str, float]] = []
        # A callback may change the current folder.
        self._path = None if workdir is None else as_path("workdir", workdir).absolute()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of what learns."""
        return self._step.optimizer

    @property
    def total_steps(self) -> int:
        """The steps of all epochs."""
        return self.config.epochs * self._batches_per_epoch

    @cached_property
    def _average(self) -> WeightAverage | None:
        # Made when training begins: the stage before this one changes the weights, or the user.
        return (
            None
            if self.config.ema_decay is None
            else WeightAverage(self._learning, self.config.ema_decay)
        )

    def _refuse_what_cannot_be(self, config: StageConfig) -> None:
        require_one_device(self.model.encoder, self.model.fusion)
        autocast(self._device, config.precision)  # raises where the device cannot
        if plain_class(self.model) is not type(self.model):
            raise ValueError(
                "fully_shard was called on the ComposedEncoder, which is not called as a whole: "
                "call it on the encoder"
            )
        if config.precision == "fp16" and any(map(is_sharded, self.model.parameters())):
            raise ValueError("precision='fp16' does not go with FSDP2: use 'bf16'")
        for name in ("metric", "patience"):
            value = getattr(config, name)
            if self.validation is None and value is not None:
                raise ValueError(f"{name}={value!r} needs a validation dataset")

    def _chosen_metrics(self) -> tuple[str, ...]:
        """Those that pick the best weights, the deciding one first."""
        if self.validation is None:
            return ()
        valid = metric_names(self.validation)
        for metric in self.config.metrics:
            if metric not in valid:
                raise ValueError(f"unknown metric {metric!r}; valid: {', '.join(valid)}")
        return self.config.metrics or (default_metric(self.validation),)

    def _refuse_sparse_gradients(self) -> None:
        for name, module in self.model.named_modules():
            if getattr(module, "sparse", False) is True and f"{name}.weight" in self._learning:
                raise ValueError(f"{name} has sparse gradients: make it with sparse=False")

    def _warn_of_batchnorm(self) -> None:
        # The parts of a batch meet before the fusion, those of the processes behind it.
        inexact = {
            "encoder": self.config.micro_batch_size is not None or get_world_size() > 1,
            "fusion": get_world_size() > 1,
        }
        for part, wrong in inexact.items():
            if wrong and any(isinstance(m, _BatchNorm) for m in self._state.acting(part)):
                way_out = "encoder_mode='eval', or " if part == "encoder" else ""
                warnings.warn(
                    f"BatchNorm of the {part} learns its statistics from parts of a batch here, "
                    "so that the gradient is not that of the whole batch: use "
                    f"{way_out}another norm",
                    stacklevel=3,
                )

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that ``step`` uses: what does not learn is looked up, computed once here."""
        with self._state.applied():
            encoder: Encoder = self.model.encoder
        known = lookups_of(encoder)
        datasets = [_TripletsOnly(self.train), *([self.validation] if self.validation else [])]
        if "image" in known:
            image_paths(datasets)  # raises where one id means two files
        sides = [side for side in frozen_sides(self.model, self._learning) if side not in known]
        if not (self.config.cache and sides):
            return encoder
        num_workers = self.config.num_workers
        with keyed(self.config.seed):
            cached = PartlyCachedEncoder.build(
                encoder, *datasets, sides=sides, num_workers=num_workers
            )
        # An encoder that is no module has no device; its features go to the fusion's.
        cached.tables.to(self._device)
        return cached

    def step(self, batch: Batch) -> Tensor:
        """Encode, fuse, compute the loss, update; the loss without its graph.

        It leaves the model in the state of the stage: what learns needs gradients, dropout acts.
        On many processes each gives its share of the batch, and all get the loss of the whole.

        Raises:
            NonFiniteError: if the loss or a gradient is NaN or infinite; nothing has been updated.
        """
        average, encoder = self._average, self.encoder  # the average begins before the update
        with self._state.applied():
            outcome = self._step(encoder, batch, self.steps, self.total_steps)
            if outcome.updated and average is not None:
                average.update()
        self.steps += 1
        self._sums.add(outcome)
        self._callbacks.call("on_step", self, outcome.loss)
        return outcome.loss

    def run(self) -> Run:
        """Train to the end, or go on from the last checkpoint; then load the best weights.

        Afterwards every module is in the mode, and every parameter needs gradients, as before.
        """
        held = nullcontext() if self._workdir is None else self._workdir.held()
        with held, self._state.borrowed(), deterministic(self.config.deterministic):
            self._resume()
            self._callbacks.call("on_start", self)
            if not self._is_over():
                self._train()
            run = self._finish()
            self._callbacks.call("on_end", self, run)
            return run

    def _train(self) -> None:
        """The steps that are left; one line of progress for all epochs."""
        remaining = self._remaining(self.encoder)
        if not self._callbacks.show_progress:
            names = self.config.trainable
            label = f"training {names if isinstance(names, str) else ', '.join(names)}"
            done = self.epoch * self._batches_per_epoch + self.batch
            remaining = progress(remaining, self.total_steps, label, "steps", start=done)
        for batch in remaining:
            self.step(batch)
            self.batch += 1
            if self.config.save_every_steps and self.steps % self.config.save_every_steps == 0:
                self._save()

    def _remaining(self, encoder: Encoder) -> Iterator[Batch]:
        """The batches of all epochs that are left; ends an epoch once its last step is made."""
        epochs = Epochs(self.train, encoder, self.config)
        while not self._is_over():
            yield from epochs.batches(self.epoch, start=self.batch)
            self._end_epoch()

    def _is_over(self) -> bool:
        if self.epoch >= self.config.epochs:
            return True
        if self.config.patience is None or not self._best.entries[self._metrics[0]]:
            return False
        later = [record for record in self._history if record["epoch"] > self._best.epoch]
        validated = [record for record in later if self._metrics[0] in record]
        return len(validated) >= self.config.patience

    def _end_epoch(self) -> None:
        if not self._sums.steps and not self._step.scaler.is_enabled():
            raise NonFiniteError(f"each of the {self._sums.skipped} steps of an epoch was left out")
        self.epoch += 1
        record = {"epoch": self.epoch, **self._sums.means(), "lr": self._learning_rate}
        due = self.epoch % self.config.eval_every_epochs == 0 or self.epoch == self.config.epochs
        if self.validation is not None and due:
            with self._result_in_place():
                record.update(self._validate(self.validation))
                self._best.offer(record, self._weights())
        self._history.append(record)
        self._callbacks.call("on_epoch", self, record)
        self.batch, self._sums = 0, Sums()
        if self.config.save_every_steps is None or self._is_over():
            self._save()

    @property
    def _learning_rate(self) -> float:
        """That of the last step, of the first group."""
        return self._step.rates(self.steps - 1, self.total_steps)[0]

    def _validate(self, validation: Dataset) -> Mapping[str, float]:
        view = ComposedEncoder(self.encoder, self.model.fusion)
        # A resumed run must draw the same numbers as one that has not stopped.
        with keyed(self.config.seed, self.epoch):
            evaluation = evaluate(view, validation, num_workers=self.config.num_workers)
        self._callbacks.call("on_evaluation", self, evaluation)
        # One process decides what is best, so that all go the same way.
        metrics: Mapping[str, float] = gather_objects(dict(evaluation))[0]
        return metrics

    @contextmanager
    def _result_in_place(self) -> Iterator[None]:
        if self._average is None:
            yield
            return
        with self._state.alone(), self._average.in_place():
            yield

    def _weights(self) -> dict[str, Any]:
        return collect(self.model, self._step.loss_module, self._learning)

    def _save(self) -> None:
        if self._workdir is None:
            return
        state = self._position() | {
            "history": self._history,
            "optimizer": collect_optimizer(self.optimizer, self._step.parameters),
            "best": self._best.entries,
            "callbacks": self._callbacks.states(),
        }
        self._workdir.save_last(state, self._best.names())
        self._callbacks.call("on_checkpoint", self, self._workdir.last)
        self._workdir.keep_held()

    def _position(self) -> dict[str, Any]:
        """Copy what has the same form in every checkpoint of this training."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "steps": self.steps,
            "sums": self._sums.state_dict(),
            "weights": self._weights(),
            "average": None if self._average is None else self._average.state_dict(),
            "scaler": self._step.scaler.state_dict(),
        }

    @cached_property
    def _workdir(self) -> Workdir | None:
        # Made when training begins: the frozen weights that it is checked by are final then.
        if self._path is None:
            return None
        acting = self._state.buffers()
        data = self.train, self.validation
        identity = describe_run(self.model, self._learning, acting, self.loss, self.config, *data)
        return Workdir(self._path, identity)

    @cached_property
    def _best(self) -> BestWeights:
        return BestWeights(self._metrics, self.config.keep_best, self._workdir)

    def _resume(self) -> None:
        if self._workdir is None:
            return
        state = self._workdir.load_last()
        self._workdir.save_config(self.config.to_dict())
        if state is None:
            return
        self._check(self._workdir.last, state)
        with self._state.alone():
            restore(self.model, self._step.loss_module, state["weights"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        restore_optimizer(self.optimizer, self._step.parameters, state["optimizer"])
        self._step.scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch, self.steps = state["epoch"], state["batch"], state["steps"]
        self._sums, self._history = Sums(**state["sums"]), state["history"]
        self._best.restore(state["best"])
        self._callbacks.restore(state["callbacks"])

    def _check(self, path: Path, state: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that this training has not written; nothing is restored yet."""
        like = self._position()
        others = ("format", "identity", "history", "optimizer", "best", "callbacks")
        check_like(path, "", dict.fromkeys(state, 0), dict.fromkeys([*like, *others], 0))
        check_like(path, "", {name: state[name] for name in like}, like)
        epoch, batch, steps = state["epoch"], state["batch"], state["steps"]
        if batch > self._batches_per_epoch or steps != epoch * self._batches_per_epoch + batch:
            raise ValueError(
                f"{path} is no checkpoint of this training: batch {batch} of epoch {epoch} is not "
                f"step {steps}; give another workdir to begin anew"
            )
        check_history(path, state["history"], epoch)
        check_best(path, state["best"], self._metrics, state["history"])
        self._callbacks.check(path, state["callbacks"])
        entries = optimizer_entries(self.optimizer)
        check_optimizer(path, state["optimizer"], self._step.parameters, entries, steps)
        check_own_bytes(path, {name: state[name] for name in ("weights", "average", "optimizer")})

    def _finish(self) -> Run:
        metrics: Mapping[str, float] = self._history[-1]
        if self.validation is not None:
            weights, metrics = self._best.result(self._weights())
            with self._state.alone():
                restore(self.model, self._step.loss_module, weights)
        elif self._average is not None:
            with self._state.alone():
                self._average.put()
        return Run(self.model, metrics, tuple(self._history), self._path)


def fit(
    model: ComposedEncoder,
    train: Dataset,
    loss: Loss,
    config: StageConfig,
    validation: Dataset | None = None,
    workdir: str | Path | None = None,
    callbacks: Iterable[Any] = (),
) -> Run:
    """``Trainer(...).run()``: train in place and load the best weights back.

    Args:
        model: as in ``Trainer``.
        train: as in ``Trainer``.
        loss: as in ``Trainer``.
        config: as in ``Trainer``.
        validation: as in ``Trainer``.
        workdir: as in ``Trainer``.
        callbacks: as in ``Trainer``.

    Raises:
        TypeError: as ``Trainer``.
        ValueError: as ``Trainer``; also if the workdir belongs to another run.
        NonFiniteError: if the loss or a gradient is NaN or infinite.
        FileNotFoundError: if images are missing.
        ImageError: if one cannot be read.
    """
    return Trainer(model, train, loss, config, validation, workdir, callbacks).run()


def _require_kinds(
    model: ComposedEncoder, train: Dataset, loss: Loss, config: StageConfig, validation: Any
) -> None:
    order = "model, train, loss, config, validation, workdir"
    require("model", model, "compose", "a ComposedEncoder", order)
    require("train", train, "triplets", "a Dataset", order)
    require("loss", loss, "__call__", "callable", order)
    require("config", config, "fixed", "a StageConfig", order)
    if validation is not None:
        require("validation", validation, "tasks", "a Dataset", order)
    if isinstance(loss, type):
        raise TypeError(f"loss is the class {loss.__name__}: pass an instance of it")


class _TripletsOnly:
    """A training set without the gallery images that no triplet uses, where it tells them."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.image_ids = training_image_ids(dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

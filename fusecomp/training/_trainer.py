from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fusecomp._core.checks import as_path, require, whole_number
from fusecomp._core.devices import autocast, device_of, require_one_device
from fusecomp._core.progress import progress
from fusecomp._core.randomness import keyed
from fusecomp.distributed import broadcast, gather_objects, is_sharded, join, plain_class, prepare
from fusecomp.evaluation import evaluate
from fusecomp.model import ComposedEncoder
from fusecomp.training._batches import Epochs
from fusecomp.training._best_weights import BestWeights
from fusecomp.training._callbacks import Callbacks
from fusecomp.training._checkpoint import StageState
from fusecomp.training._deterministic import deterministic
from fusecomp.training._early_checks import check_loss, check_parts
from fusecomp.training._frozen_features import FrozenFeatures
from fusecomp.training._learning_parameters import Stage, frozen_sides, learning_parameters
from fusecomp.training._progress import NonFiniteError, Progress, Record, Sums
from fusecomp.training._run_identity import describe_run
from fusecomp.training._stage_config import StageConfig
from fusecomp.training._stage_data import StageData, check_data
from fusecomp.training._stage_modes import StageModes
from fusecomp.training._step import Step
from fusecomp.training._weight_average import WeightAverage
from fusecomp.training._workdir import Workdir
from fusecomp.types import Batch, Dataset, Encoder, Loss


@dataclass(frozen=True, slots=True)
class Run:
    """The result of a training.

    Args:
        model: the trained model, with the best weights (the last ones without validation).
        metrics: the record of these weights' epoch: ``epoch``, ``loss``, ``gradient_norm`` (means
            over the steps), ``lr``, and the metrics of the validation.
        history: the record of every epoch.
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

    Call ``fit``; or, in a loop of your own, ``prepare``, then ``step`` on ``training.batches`` made
    with the encoder that it returns. A trainer trains once; another one goes on from the model's
    weights.

    Args:
        model: the encoder and fusion to train, on the device to train on.
        loss: any callable ``loss(query, target) -> scalar``; if it names the keywords
            ``target_ids`` or ``reference_ids`` (int64 [B], positions in the training set's
            ``image_ids``), it gets them.
        config: the settings.
        workdir: for checkpoints and the log of ``fit``. The same call again resumes, and ends with
            the same weights to the bit (on a CPU) as a run that never stopped; with a constant
            schedule, more ``epochs`` go on where it ended. Settings of all parts, data and frozen
            weights are compared; the initial weights of what learns are not. Of many processes,
            under torchrun, the first writes; all must see the folder.
        callbacks: any objects with some of the hooks ``on_start(trainer)``, ``on_step(trainer,
            loss)``, ``on_evaluation(trainer, evaluation)``, ``on_epoch(trainer, record)``,
            ``on_checkpoint(trainer, path)`` and ``on_end(trainer, run)``, called on every
            process; such as ``TqdmBar``, ``TensorBoardLog`` and ``WandbLog``. Checkpoints keep
            what ``state_dict()`` of one returns, for its ``load_state_dict``. One with
            ``shows_progress = True`` replaces the progress line.

    Raises:
        TypeError: if an argument is something else.
        ValueError: if ``config.trainable`` names nothing that can learn, or only what you have
            frozen, weights that learn are in half precision, the precision does not fit the
            device, encoder and fusion are on different devices, FSDP2 has sharded the whole
            model, or the loss needs what nothing gives it, or has a ``Bank`` while images move.
    """

    def __init__(
        self,
        model: ComposedEncoder,
        *,
        loss: Loss,
        config: StageConfig,
        workdir: str | Path | None = None,
        callbacks: Iterable[object] = (),
    ) -> None:
        require("model", model, "compose", "a ComposedEncoder")
        require("loss", loss, "__call__", "callable")
        require("config", config, "fixed", "a StageConfig")
        # A callback may change the current folder.
        self._path = None if workdir is None else as_path("workdir", workdir).absolute()
        self._callbacks = Callbacks(callbacks)
        join()
        prepare(model)
        self.model = model
        self.loss = loss
        self.config = config
        _require_trainable(model, config)
        self._stage = Stage(model, loss, config, learning_parameters(model, config))
        check_loss(self._stage)
        self._modes = StageModes(self._stage)
        self._modes.warn_of_batchnorm()
        loss_module = self._stage.loss_module.to(device_of(model))
        # What one process has drawn at random counts for all. Cached features are no state.
        with self._modes.alone():
            broadcast([*model.state_dict().values(), *loss_module.state_dict().values()])
        self._step = Step(self._stage, self._modes.buffers())
        self._progress = Progress()
        self._data: StageData | None = None
        self._encoder: Encoder | None = None
        # Stages that train one encoder after another share it.
        self.frozen_features = FrozenFeatures()
        self._average: WeightAverage | None = None

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of what learns."""
        return self._step.optimizer

    @property
    def epoch(self) -> int:
        """The number of complete epochs."""
        return self._progress.epoch

    @property
    def steps(self) -> int:
        """The number of steps so far, over all epochs; set it to resume a loop of your own."""
        return self._progress.steps

    @steps.setter
    def steps(self, number: int) -> None:
        self._progress.steps = whole_number("steps", number, 0)

    @property
    def total_steps(self) -> int:
        """The steps of all epochs; 0 before the datasets are known."""
        return 0 if self._data is None else self.config.epochs * self._data.batches_per_epoch

    def prepare(self, train_dataset: Dataset, val_dataset: Dataset | None = None) -> Encoder:
        """Check the datasets and return the encoder to make ``batches`` with, for your own loop.

        It looks up what does not learn, which is computed here.

        Raises:
            TypeError: if an argument is no dataset.
            ValueError: if the triplets make no batch, the metric is unknown, one image id means
                two files, a ``Bank`` has an id that no image has, the fusion needs
                ``reference_texts`` that a dataset lacks, or the trainer has its datasets already.
            FileNotFoundError: if images are missing.
            ImageError: if one cannot be read.
        """
        return self._look_up(self._begin(train_dataset, val_dataset))

    def _begin(self, train_dataset: Dataset, val_dataset: Dataset | None) -> StageData:
        if self._data is not None:
            raise ValueError(
                "this trainer has its datasets already, and trains once: make another one, which "
                "goes on from the model's weights, or from the last checkpoint of its workdir"
            )
        data = self._data = check_data(train_dataset, val_dataset, self.config)
        check_parts(self.model, self.loss, data)
        self.frozen_features.forget(self._stage)
        if self.config.ema_decay is not None:
            # Not before: a stage before this one changes the weights, or the user.
            self._average = WeightAverage(self._stage.learning, self.config.ema_decay)
        return data

    def _look_up(self, data: StageData) -> Encoder:
        with self._modes.applied():  # requires_grad shows which heads learn
            frozen = frozen_sides(self._stage)
        self._encoder = self.frozen_features.of_stage(self._stage, data, frozen)
        return self._encoder

    def step(self, batch: Batch) -> Tensor:
        """Encode, fuse, compute the loss, update; return the loss without its graph.

        The model stays in the state of the stage: what learns needs gradients, dropout acts. On
        many processes each gives its share of the batch, and all get the loss of the whole.

        Raises:
            NonFiniteError: if the loss or a gradient is NaN or infinite; nothing has been updated.
            ValueError: before ``prepare``, or if the loss is no scalar with a gradient.
        """
        if self._encoder is None:
            raise ValueError("a step needs its encoder: call prepare(train_dataset) before")
        with self._modes.applied():
            outcome = self._step(self._encoder, batch, self.steps, self.total_steps)
            if outcome.updated and self._average is not None:
                self._average.update()
        self._progress.steps += 1
        self._progress.sums.add(outcome)
        self._callbacks.call("on_step", self, outcome.loss)
        return outcome.loss

    def fit(self, train_dataset: Dataset, val_dataset: Dataset | None = None) -> Run:
        """Train to the end, or go on from the last checkpoint; then load the best weights.

        Modes of modules and ``requires_grad`` of parameters are afterwards as before.

        Args:
            train_dataset: the triplets to learn from.
            val_dataset: is evaluated to pick the best weights; without it the last ones stay.

        Raises:
            TypeError: if an argument is no dataset.
            ValueError: if ``prepare`` would raise it, or the workdir belongs to another run.
            NonFiniteError: if the loss or a gradient is NaN or infinite.
            FileNotFoundError: if images are missing.
            ImageError: if one cannot be read.
        """
        data = self._begin(train_dataset, val_dataset)
        self._workdir = None
        if self._path is not None:
            identity = describe_run(self._stage, self._modes.buffers(), data)
            self._workdir = Workdir(self._path, identity)
        self._best = BestWeights(data.metrics, self.config.keep_best, self._workdir)
        self._state = StageState(
            self.model, self._step, self._progress, self._average, self._best, self._callbacks, data
        )
        held = nullcontext() if self._workdir is None else self._workdir.held()
        with held, self._modes.restored(), deterministic(self.config.deterministic):
            self._resume()
            self._callbacks.call("on_start", self)
            if not self._is_over():
                self._train(data)
            run = self._finish(data)
            self._callbacks.call("on_end", self, run)
            return run

    def _train(self, data: StageData) -> None:
        """Make the steps that are left."""
        batches = self._batches_left(data, self._look_up(data))
        if not self._callbacks.show_progress:
            names = self.config.trainable
            label = f"training {names if isinstance(names, str) else ', '.join(names)}"
            done = self.epoch * data.batches_per_epoch + self._progress.batch
            batches = progress(
                batches,
                self.total_steps,
                label,
                "steps",
                start=done,
                note=lambda: self._progress.latest(data.metrics),
            )
        for batch in batches:
            self.step(batch)
            self._progress.batch += 1
            if self.config.save_every_steps and self.steps % self.config.save_every_steps == 0:
                self._save()

    def _batches_left(self, data: StageData, encoder: Encoder) -> Iterator[Batch]:
        """Yield the batches of all epochs that are left; end an epoch after its last step."""
        prompts = "reference_text" in self.model.fusion_keywords
        epochs = Epochs(data.train, encoder, self.config, prompts)
        while not self._is_over():
            yield from epochs.batches(self.epoch, start=self._progress.batch)
            self._end_epoch(data.val, encoder)

    def _is_over(self) -> bool:
        if self.epoch >= self.config.epochs:
            return True
        patience, history = self.config.patience, self._progress.history
        return patience is not None and self._best.epochs_without_better(history) >= patience

    def _end_epoch(self, val: Dataset | None, encoder: Encoder) -> None:
        sums = self._progress.sums
        if not sums.steps and not self._step.scaler.is_enabled():
            raise NonFiniteError(f"each of the {sums.skipped} steps of an epoch was left out")
        self._progress.epoch += 1
        (rate, *_) = self._step.rates(self.steps - 1, self.total_steps)
        record: dict[str, float] = {"epoch": self.epoch, **sums.means(), "lr": rate}
        self._progress.history.append(record)
        due = self.epoch % self.config.eval_every_epochs == 0 or self.epoch == self.config.epochs
        if val is not None and due:
            with ExitStack() as stack:
                if self._average is not None:
                    stack.enter_context(self._modes.alone())
                    stack.enter_context(self._average.in_place())
                record |= self._validate(val, ComposedEncoder(encoder, self.model.fusion))
                self._best.offer(self._progress.history, self._state.weights())
        self._callbacks.call("on_epoch", self, record)
        self._progress.batch, self._progress.sums = 0, Sums()
        if self.config.save_every_steps is None or self._is_over():
            self._save()

    def _validate(self, val: Dataset, model: ComposedEncoder) -> Record:
        # A resumed run must draw the same numbers as one that has not stopped.
        with keyed(self.config.seed, self.epoch):
            evaluation = evaluate(model, val, num_workers=self.config.num_workers)
        self._callbacks.call("on_evaluation", self, evaluation)
        # One process decides what is best, so that all go the same way.
        return gather_objects(dict(evaluation))[0]

    def _save(self) -> None:
        if self._workdir is not None:
            best = self._best.names(self._progress.history)
            self._workdir.save_last(self._state.state_dict(), best)
            self._callbacks.call("on_checkpoint", self, self._workdir.last)

    def _resume(self) -> None:
        if self._workdir is None:
            return
        saved = self._workdir.load_last()
        self._workdir.save_config(self.config.to_dict())
        if saved is not None:
            self._state.check(self._workdir.last, saved)
            self._workdir.needed = self._best.names(saved["history"])
            with self._modes.alone():
                self._state.load_state_dict(saved)

    def _finish(self, data: StageData) -> Run:
        history = tuple(self._progress.history)
        metrics = history[-1]
        with self._modes.alone():
            if data.val is not None:
                weights, metrics = self._best.result(history, self._state.weights())
                self._state.put_weights(weights)
            elif self._average is not None:
                self._average.put()
        return Run(self.model, metrics, history, self._path)


def _require_trainable(model: ComposedEncoder, config: StageConfig) -> None:
    require_one_device(model.encoder, model.fusion)
    autocast(device_of(model), config.precision)  # raises where the device cannot
    if plain_class(model) is not type(model):
        raise ValueError(
            "fully_shard was called on the ComposedEncoder, which is not called as a whole: "
            "call it on the encoder"
        )
    if config.precision == "fp16" and any(map(is_sharded, model.parameters())):
        raise ValueError("precision='fp16' does not go with FSDP2: use 'bf16'")

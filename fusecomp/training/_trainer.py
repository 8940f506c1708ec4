import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusecomp.encoders import PartlyCachedEncoder
from fusecomp.evaluation import evaluate, metric_names
from fusecomp.files import open_atomic
from fusecomp.model import ComposedEncoder
from fusecomp.modules import autocast, describe, device_of, fingerprint, require_one_device
from fusecomp.progress import progress
from fusecomp.protocols import Dataset, Encoder, Loss, require
from fusecomp.records import Batch
from fusecomp.similarity import widen
from fusecomp.training._batches import batches, plan
from fusecomp.training._checkpoint import Workdir, collect, restore
from fusecomp.training._learning import frozen_sides, learning_parameters
from fusecomp.training._stage import StageConfig
from fusecomp.training._state import StageState

__all__ = ["NonFiniteError", "Run", "Trainer", "fit"]

_ID_KEYWORDS = ("target_ids", "reference_ids")


class NonFiniteError(ValueError):
    """A loss or gradient that is NaN or infinite; the message says where. Nothing was updated."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a training gives.

    Args:
        model: the trained model, with the best weights (the last ones without validation).
        metrics: of these weights: ``epoch``, ``loss``, and those of the validation.
        history: the same for every epoch.
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
    """Trains what ``config.train`` names, in place; one loop for every stage.

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
            same weights to the bit (on a CPU) as a run that never stopped. Settings, data, frozen
            weights and the kinds of the parts are compared; the initial weights of what learns
            are not.

    Raises:
        TypeError: if an argument is something else, as when two are swapped.
        ValueError: if ``config.train`` names nothing that can learn, the metric is unknown, the
            triplets make no batch, the precision does not fit the device, or encoder and fusion
            are on different devices.
    """

    def __init__(
        self,
        model: ComposedEncoder,
        train: Dataset,
        loss: Loss,
        config: StageConfig,
        validation: Dataset | None = None,
        workdir: str | Path | None = None,
    ) -> None:
        _require_kinds(model, train, loss, config, validation)
        self.model = model
        self.train = train
        self.loss = loss
        self.config = config
        self.validation = validation
        self.epoch = self.batch = self.steps = 0
        self._device = device_of(model)
        self._metric = self._check(config)
        self._learning = learning_parameters(model, config)
        self._state = StageState(model, self._learning.values(), config.encoder_mode)
        self._loss_module = loss if isinstance(loss, nn.Module) else None
        if self._loss_module is not None:
            self._loss_module.to(self._device)
        self.optimizer = _optimizer(self._parameters(), config)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=config.precision == "fp16")
        self._loss_keywords = _accepted_keywords(loss)
        self._loss_sum = 0.0
        self._history: list[dict[str, float]] = []
        self._best: dict[str, Any] | None = None
        self._path = None if workdir is None else Path(workdir)

    def _check(self, config: StageConfig) -> str | None:
        """The metric that picks the best weights; early errors."""
        require_one_device(self.model.encoder, self.model.fusion)
        autocast(self._device, config.precision)  # raises where the device cannot
        self._batches_per_epoch = len(plan(len(self.train), config, epoch=0))
        if self.validation is None:
            if config.metric is not None:
                raise ValueError(f"metric={config.metric!r} needs a validation dataset")
            return None
        valid = metric_names(self.validation)
        if config.metric is not None and config.metric not in valid:
            raise ValueError(f"unknown metric {config.metric!r}; valid: {', '.join(valid)}")
        return config.metric

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that ``step`` uses: what does not learn is looked up, computed once here."""
        self._state.apply()
        encoder: Encoder = self.model.encoder
        known = getattr(encoder, "lookup", {})
        sides = [side for side in frozen_sides(self.model, self._learning) if side not in known]
        if not (self.config.cache and sides):
            return encoder
        datasets = [_TripletsOnly(self.train), *([self.validation] if self.validation else [])]
        workers = self.config.workers
        cached = PartlyCachedEncoder.build(encoder, *datasets, sides=sides, workers=workers)
        # An encoder that is no module has no device; its features go to the fusion's.
        cached.tables.to(self._device)
        return cached

    def step(self, batch: Batch) -> Tensor:
        """Encode, fuse, compute the loss, update; the loss without its graph.

        It leaves the model in the state of the stage: what learns needs gradients, dropout acts.

        Raises:
            NonFiniteError: if the loss or a gradient is NaN or infinite; nothing has been updated.
        """
        self._state.apply()
        self.optimizer.zero_grad(set_to_none=True)
        with self._randomness():
            query, target = self._features(batch)
            ids = {name: getattr(batch, name).to(self._device) for name in self._loss_keywords}
            loss = self.loss(query, target, **ids)
            if loss.ndim != 0:
                raise ValueError(f"the loss must return a scalar, got {list(loss.shape)}")
            if not loss.isfinite():
                raise NonFiniteError(_describe_nonfinite(loss, query, target, batch))
            self._scaler.scale(loss).backward()
        self._check_gradients()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.steps += 1
        return loss.detach()

    def _check_gradients(self) -> None:
        # With fp16 the scaler itself looks, leaves the step out and lowers its scale.
        if self._scaler.is_enabled():
            return
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        if torch.nn.utils.get_total_norm(gradients).isfinite():
            return
        bad = [n for n, p in self._learning.items() if p.grad is not None and _broken(p.grad)]
        self.optimizer.zero_grad(set_to_none=True)
        raise NonFiniteError(
            f"the loss is finite, but the gradients of {bad[:5] or 'the loss itself'} hold NaN or "
            "infinity; nothing was updated. Look for a square root or a division at zero"
        )

    def _parameters(self) -> list[nn.Parameter]:
        own = [] if self._loss_module is None else list(self._loss_module.parameters())
        return [*self._learning.values(), *own]

    def _features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        reference, target = (self._moved(i) for i in (batch.reference, batch.target))
        texts, counts = self._moved(batch.texts), self._moved(batch.text_counts)
        with autocast(self._device, self.config.precision):
            image = self.encoder.encode_image(reference)
            text = self.encoder.encode_text(texts)
            query = self.model.compose(image, text, counts)
            return query, widen(self.encoder.encode_image(target)).to(query.dtype)

    def _moved(self, inputs: Any) -> Any:
        return inputs.to(self._device) if isinstance(inputs, Tensor) else inputs

    @contextmanager
    def _randomness(self) -> Iterator[None]:
        """Random numbers as a function of seed and step; the caller's own stream goes on after."""
        devices = [] if self._device.type == "cpu" else [self._device]
        with torch.random.fork_rng(devices, device_type=_accelerator(self._device)):
            seed = _mixed(self.config.seed, self.steps)
            # Not torch.manual_seed: that would also seed devices whose streams are not kept.
            torch.default_generator.manual_seed(seed)
            if self._device.type != "cpu":
                # manual_seed of a GPU's module is that of the current GPU, which may be another.
                state = torch.Generator(self._device).manual_seed(seed).get_state()
                torch.get_device_module(self._device).set_rng_state(state, self._device)
            yield

    def run(self) -> Run:
        """Train to the end, or go on from the last checkpoint; then load the best weights.

        Afterwards every module is in the mode, and every parameter needs gradients, as before.
        """
        with self._state.borrowed():
            return self._run()

    def _run(self) -> Run:
        self._resume()
        if self.epoch < self.config.epochs:
            self._train()
        return self._finish()

    def _train(self) -> None:
        """The steps that are left; one line of progress for all epochs."""
        names = self.config.train
        label = f"training {names if isinstance(names, str) else ', '.join(names)}"
        total = self.config.epochs * self._batches_per_epoch
        done = self.epoch * self._batches_per_epoch + self.batch
        for batch in progress(self._remaining(self.encoder), total, label, "steps", start=done):
            self._loss_sum += self.step(batch).item()
            self.batch += 1
            if self.config.save_every and self.steps % self.config.save_every == 0:
                self._save()

    def _remaining(self, encoder: Encoder) -> Iterator[Batch]:
        """The batches of all epochs that are left; ends an epoch once its last step is made."""
        while self.epoch < self.config.epochs:
            yield from batches(self.train, encoder, self.config, self.epoch, start=self.batch)
            self._end_epoch()

    def _end_epoch(self) -> None:
        self.epoch += 1
        record = {"epoch": self.epoch, "loss": self._loss_sum / self._batches_per_epoch}
        due = self.epoch % self.config.eval_every == 0 or self.epoch == self.config.epochs
        if self.validation is not None and due:
            view = ComposedEncoder(self.encoder, self.model.fusion)
            evaluation = evaluate(view, self.validation, workers=self.config.workers)
            record.update(evaluation)
            score = evaluation[self._metric or evaluation.headline]
            if self._best is None or score > self._best["score"]:
                self._keep_best(score, record)
        self._history.append(record)
        self.batch, self._loss_sum = 0, 0.0
        self._save()

    def _keep_best(self, score: float, metrics: Mapping[str, float]) -> None:
        weights = collect(self.model, self._loss_module, self._learning)
        self._best = {"score": score, "metrics": dict(metrics)}
        if self._workdir is None:
            self._best["weights"] = weights
        else:
            self._workdir.save_best({**self._best, "weights": weights})

    def _save(self) -> None:
        if self._workdir is None:
            return
        self._workdir.save_last(
            {
                "epoch": self.epoch,
                "batch": self.batch,
                "steps": self.steps,
                "loss_sum": self._loss_sum,
                "weights": collect(self.model, self._loss_module, self._learning),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
                "history": self._history,
                "best": self._best,
            }
        )
        with open_atomic(self._workdir.path / "log.jsonl") as log:
            log.writelines(f"{json.dumps(record)}\n".encode() for record in self._history)

    @cached_property
    def _workdir(self) -> Workdir | None:
        # Made when training begins: the frozen weights that it is checked by are final then.
        return None if self._path is None else Workdir(self._path, self._identity())

    def _resume(self) -> None:
        if self._workdir is None:
            return
        state = self._workdir.load_last()
        if state is None:
            self._workdir.save_config(self.config.to_dict())
            return
        restore(self.model, self._loss_module, state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch, self.steps = state["epoch"], state["batch"], state["steps"]
        self._loss_sum, self._history = state["loss_sum"], state["history"]
        self._best = state["best"]

    def _finish(self) -> Run:
        metrics: Mapping[str, float] = self._history[-1]
        if self._best is not None:
            best = self._best if self._workdir is None else self._workdir.load_best()
            restore(self.model, self._loss_module, best["weights"])
            metrics = best["metrics"]
        return Run(self.model, metrics, tuple(self._history), self._path)

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        # Persistent buffers may change (BatchNorm's) and are part of the checkpoint.
        changing = (
            self._learning.keys()
            | self.model.state_dict().keys() - dict(self.model.named_parameters()).keys()
        )
        tensors = chain(self.model.named_parameters(), self.model.named_buffers())
        frozen = [(name, tensor) for name, tensor in tensors if name not in changing]
        data = {"train": self.train, "validation": self.validation}
        return {
            **{f"config.{name}": value for name, value in self.config.fixed().items()},
            **{name: self._describe_dataset(dataset) for name, dataset in data.items()},
            "encoder": _describe_part(self.model.encoder),
            "fusion": _describe_part(self.model.fusion),
            "learning weights": {n: list(p.shape) for n, p in self._learning.items()},
            "frozen weights": fingerprint(frozen),
            "loss": str(self.loss) if self._loss_module is not None else "callable",
        }

    def _describe_dataset(self, dataset: Dataset | None) -> dict[str, Any] | None:
        if dataset is None:
            return None
        triplets = hashlib.sha256()
        for triplet in dataset.triplets(0, self.config.seed):
            triplets.update(repr(triplet).encode())
        protocol = dict(getattr(dataset, "protocol", {}))
        size = {"triplets": len(dataset), "images": len(dataset.image_ids)}
        return {**size, "hash": triplets.hexdigest(), **protocol}


def fit(
    model: ComposedEncoder,
    train: Dataset,
    loss: Loss,
    config: StageConfig,
    validation: Dataset | None = None,
    workdir: str | Path | None = None,
) -> Run:
    """``Trainer(...).run()``: train in place and load the best weights back.

    Args:
        model: as in ``Trainer``.
        train: as in ``Trainer``.
        loss: as in ``Trainer``.
        config: as in ``Trainer``.
        validation: as in ``Trainer``.
        workdir: as in ``Trainer``.

    Raises:
        TypeError: as ``Trainer``.
        ValueError: as ``Trainer``; also if the workdir belongs to another run.
        NonFiniteError: if the loss or a gradient is NaN or infinite.
        FileNotFoundError: if pictures are missing.
        PictureError: if one cannot be read.
    """
    return Trainer(model, train, loss, config, validation, workdir).run()


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
    """A training set without the gallery pictures that no triplet uses, where it tells them."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.image_ids = getattr(dataset, "triplet_image_ids", dataset.image_ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)


def _optimizer(parameters: list[nn.Parameter], config: StageConfig) -> torch.optim.Optimizer:
    decay = config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, config.lr, weight_decay=decay or 0.0)
    # The fused kernels are several times faster on CPUs too.
    adam: dict[str, Any] = {
        "lr": config.lr,
        "betas": config.betas,
        "eps": config.eps,
        "fused": True,
    }
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, weight_decay=decay or 0.0, **adam)
    return torch.optim.AdamW(parameters, weight_decay=0.01 if decay is None else decay, **adam)


def _accepted_keywords(loss: Any) -> list[str]:
    loss = getattr(loss, "_orig_mod", loss)  # what torch.compile wraps
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin tells nothing
        return []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return list(_ID_KEYWORDS)
    names = {parameter.name for parameter in parameters}
    return [name for name in _ID_KEYWORDS if name in names]


def _describe_nonfinite(loss: Tensor, query: Tensor, target: Tensor, batch: Batch) -> str:
    bad = ~(query.isfinite().all(1) & target.isfinite().all(1))
    rows = [batch.query_ids[row] for row in bad.nonzero().flatten().tolist()]
    where = f"queries {rows[:5]} have features" if rows else "all features are finite, the loss"
    return (
        f"the loss is {loss.item()}: {where} that hold NaN or infinity; "
        "nothing was updated. Look at these rows, or lower the learning rate"
    )


def _describe_part(part: Any) -> str:
    part = getattr(part, "_orig_mod", part)
    return describe(part) if hasattr(part, "__code__") else type(part).__name__


def _broken(gradient: Tensor) -> bool:
    return not bool(gradient.isfinite().all())


def _accelerator(device: torch.device) -> str:
    return "cuda" if device.type == "cpu" else device.type


def _mixed(seed: int, step: int) -> int:
    """One number from two; neighbouring seeds and steps give unrelated streams."""
    # torch takes 64 bits; the constant is 2^64 / golden ratio, as in splitmix64.
    mixed = (seed * 0x9E3779B97F4A7C15 + step) & 0xFFFF_FFFF_FFFF_FFFF
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFF_FFFF_FFFF_FFFF
    return mixed >> 1

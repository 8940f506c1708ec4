import json
import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Self

import numpy as np

from fusecomp._core.checks import flag, number, require_choice, shown, whole_number
from fusecomp._core.strict_json import parse_json

_BETAS, _EPS = (0.9, 0.999), 1e-8

# Valid values of the fields, except names and betas.
_LEAST = {
    "epochs": 1,
    "batch_size": 2,
    "warmup_steps": 0,
    "keep_best": 1,
    "eval_every_epochs": 1,
    "seed": 0,
    "micro_batch_size": 1,
    "patience": 1,
    "save_every_steps": 1,
    "num_workers": 0,
}
_BELOW = {
    "lr": math.inf,
    "eps": math.inf,
    "weight_decay": math.inf,
    "max_grad_norm": math.inf,
    "ema_decay": 1.0,
}
_CHOICES = {
    "optimizer": ("adam", "adamw", "sgd"),
    "precision": ("fp32", "bf16", "fp16"),
    "encoder_mode": ("eval", "train"),
    "lr_schedule": ("constant", "cosine", "linear"),
    "on_nonfinite": ("raise", "skip"),
}


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """The settings of one training stage.

    Args:
        epochs: passes over the triplets.
        batch_size: triplets a step, on all processes together.
        lr: the learning rate.
        trainable: what learns, the rest is frozen: ``"fusion"``, ``"text"``, ``"image"``,
            ``"both"`` (the two towers of the encoder), or name patterns such as
            ``"encoder.text.*"``; several as a tuple. What you have frozen before the trainer is
            made stays frozen.
        optimizer: ``"adamw"``, ``"adam"`` or ``"sgd"``.
        betas: of Adam and AdamW.
        eps: of Adam and AdamW.
        weight_decay: None is 0.01 for AdamW, else 0.
        no_decay: name patterns of parameters without weight decay; None exempts biases, norms
            and all that has less than two dimensions. A temperature of the loss never decays.
        lr_overrides: other learning rates by name pattern; the last that matches counts. The loss's
            own parameters are called ``loss.NAME``.
        lr_schedule: ``"constant"``, or ``"cosine"`` or ``"linear"`` down to zero, which the step
            after the last one would have.
        warmup_steps: steps in which the learning rate rises to its full value.
        max_grad_norm: the largest norm of the gradient; longer ones are scaled down to it.
        ema_decay: decay of an average of the weights over the steps, such as 0.999; the average is
            evaluated, kept and returned.
        precision: ``"fp32"``, or autocast to ``"bf16"`` or ``"fp16"`` (GPUs only). The loss is
            always computed in float32 at least.
        micro_batch_size: rows that the encoders take at once on one process, to hold the
            activations of one part at a time. Features are computed twice; loss and gradient are
            those of the whole batch.
        gradient_checkpointing: recompute the activations of each call of the encoder (references,
            texts, targets) in the backward pass, to hold those of one call at a time.
        drop_last: leave out the last batch of an epoch if it is not full. If False, a last batch
            of a single row, or of fewer rows than processes, joins the one before.
        unique_targets: arrange each epoch so that, if possible, no batch holds a target twice.
        encoder_mode: ``"eval"`` keeps BatchNorm and dropout of a learning encoder frozen (the
            paper's way), ``"train"`` does not, next to parameters that learn.
        metric: the validation metric, higher is better, that picks the best weights; None is the
            evaluation's default. Of several, in a tuple, each keeps its own best weights; the
            first decides about the result and about stopping.
        keep_best: how many best weights to keep by each metric.
        patience: validations without a better one before training stops; None never stops early.
        eval_every_epochs: epochs between validations; the last epoch is always validated.
        save_every_steps: steps between checkpoints; None is once an epoch. The end has one too.
        on_nonfinite: on NaN or infinity in a loss or gradient, ``"raise"`` an error that names the
            rows, or ``"skip"`` the step. Nothing is updated either way.
        cache: compute the features of what does not learn once. Switch it off if ``load_image``
            draws random numbers.
        compile: compile the fusion and the loss.
        deterministic: only use algorithms that repeat to the bit; slower on GPUs.
        seed: of the batches' order, the random texts and dropout.
        num_workers: processes that load images; None chooses.

    Raises:
        ValueError: on a value out of range, naming it.

    Example:
        >>> config = StageConfig(epochs=2, batch_size=128, lr=2e-6, trainable="text")
        >>> StageConfig.from_json(config.to_json()) == config
        True
    """

    epochs: int
    batch_size: int
    lr: float
    trainable: str | tuple[str, ...] = "fusion"
    optimizer: str = "adamw"
    betas: tuple[float, float] = _BETAS
    eps: float = _EPS
    weight_decay: float | None = None
    no_decay: tuple[str, ...] | None = None
    lr_overrides: Mapping[str, float] = field(default_factory=dict)
    lr_schedule: str = "constant"
    warmup_steps: int = 0
    max_grad_norm: float | None = None
    ema_decay: float | None = None
    precision: str = "fp32"
    micro_batch_size: int | None = None
    gradient_checkpointing: bool = False
    drop_last: bool = False
    unique_targets: bool = False
    encoder_mode: str = "eval"
    metric: str | tuple[str, ...] | None = None
    keep_best: int = 1
    patience: int | None = None
    eval_every_epochs: int = 1
    # What is free does not change what is learned, so a resumed run may change it.
    save_every_steps: int | None = field(default=None, metadata={"free": True})
    on_nonfinite: str = "raise"
    cache: bool = True
    compile: bool = False
    deterministic: bool = False
    seed: int = 0
    num_workers: int | None = field(default=None, metadata={"free": True})

    def __post_init__(self) -> None:
        for field_ in fields(self):
            # As Python's own kind, which JSON has.
            object.__setattr__(self, field_.name, _checked(field_, vars(self)[field_.name]))
        if self.max_grad_norm == 0:
            raise ValueError("max_grad_norm=0.0 would stop all learning; None does not clip")
        if self.optimizer == "sgd" and (self.betas, self.eps) != (_BETAS, _EPS):
            raise ValueError("optimizer='sgd' has no betas and no eps: leave them out")
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            raise ValueError(
                f"micro_batch_size={self.micro_batch_size} is larger than "
                f"batch_size={self.batch_size}"
            )
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"metric must name each metric once, got {self.metrics!r}")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics named by ``metric``, the deciding one first; empty for the default."""
        if self.metric is None:
            return ()
        return (self.metric,) if isinstance(self.metric, str) else self.metric

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        values = {**vars(self), "lr_overrides": dict(self.lr_overrides)}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` returned.

        Raises:
            TypeError: if values is no mapping.
            ValueError: on an unknown field, listing the valid ones, or a missing one.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"values must be a dict of settings, got {values!r}")
        valid = [f.name for f in fields(cls)]
        if unknown := [name for name in values if name not in valid]:
            raise ValueError(f"unknown settings {unknown}; valid: {', '.join(valid)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from None

    def to_json(self) -> str:
        """Return the fields as a JSON object."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` returned.

        Raises:
            TypeError: if text is no string.
            ValueError: if text is no JSON object, or a field is unknown, missing or given twice.
        """
        if not isinstance(text, str | bytes):
            raise TypeError(f"text must be a string of JSON, got {text!r}")
        values = parse_json(text, "the settings")
        if not isinstance(values, dict):
            raise ValueError(f"the settings must be a JSON object, got {values!r:.80}")
        return cls.from_dict(values)

    def fixed(self) -> dict[str, Any]:
        """Return the fields that a resumed run must share."""
        free = {f.name for f in fields(self) if f.metadata.get("free")}
        return {name: value for name, value in self.to_dict().items() if name not in free}


def _checked(field_: Field[Any], value: object) -> object:
    """Return the value of a field as Python's own kind; ValueError unless it may hold it."""
    name = field_.name
    if value is None and field_.default is None:
        return None
    if name in _LEAST:
        return whole_number(name, value, _LEAST[name])
    if name in _BELOW:
        return number(name, value, 0.0, _BELOW[name])
    if name in _CHOICES:
        return require_choice(name, value, _CHOICES[name])
    if isinstance(field_.default, bool):
        return flag(name, value)
    if name == "lr_overrides":
        return _rates(value)
    value = value.tolist() if isinstance(value, np.ndarray) else value
    # JSON has no tuples.
    value = tuple(value) if isinstance(value, list) else value
    if name != "betas":
        return _names(name, value)
    if not (isinstance(value, tuple) and len(value) == 2):
        raise ValueError(f"betas must be two numbers, got {shown(value)}")
    return tuple(number("betas", beta, 0.0, 1.0) for beta in value)


def _rates(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ValueError(f"lr_overrides must map name patterns to numbers, got {shown(value)}")
    _names("lr_overrides", tuple(value))
    return {name: number(f"lr_overrides[{name!r}]", lr, 0.0) for name, lr in value.items()}


def _names(name: str, value: object) -> object:
    single = name in ("trainable", "metric")
    names = (value,) if isinstance(value, str) and single else value
    if not isinstance(names, tuple) or not all(isinstance(n, str) and n for n in names):
        raise ValueError(f"{name} must be a name or a tuple of names, got {shown(names)}")
    if names == () and single:
        raise ValueError(f"{name} must name something, got ()")
    return value

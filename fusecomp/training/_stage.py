import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

__all__ = ["StageConfig"]

_OPTIMIZERS = ("adam", "adamw", "sgd")
_PRECISIONS = ("fp32", "bf16", "fp16")
_ENCODER_MODES = ("eval", "train")
_BETAS, _EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """The settings of one training stage.

    Args:
        epochs: passes over the triplets.
        batch_size: triplets a step; each row's target is a negative of the others.
        lr: the learning rate, constant.
        train: what learns, the rest is frozen: ``"fusion"``, ``"text"``, ``"image"``, ``"both"``
            (the two towers of the encoder), or name patterns such as ``"encoder.text.*"``;
            several as a tuple.
        optimizer: ``"adamw"``, ``"adam"`` or ``"sgd"``; only the last takes sparse gradients.
        betas: of Adam and AdamW.
        eps: of Adam and AdamW.
        weight_decay: on all learning parameters; None is the optimiser's own default (0.01 for
            AdamW, else 0).
        precision: ``"fp32"``, or autocast to ``"bf16"`` or ``"fp16"`` (GPUs only). The loss is
            always computed in float32 at least.
        drop_last: leave out the last batch of an epoch if it is not full. If False, a single
            row left over joins the batch before.
        encoder_mode: ``"eval"`` keeps BatchNorm and dropout of a learning encoder frozen (the
            paper's way), ``"train"`` does not, beside parameters that learn.
        metric: the validation metric, the higher the better, that picks the best weights; None
            is the evaluation's headline.
        eval_every: epochs between validations; the last epoch is always validated.
        save_every: steps between checkpoints; None is once an epoch.
        cache: compute the features of what does not learn once. Switch it off if ``load`` draws
            random numbers.
        seed: of the batches' order, the random texts and dropout.
        workers: processes that load pictures; None chooses.

    Raises:
        ValueError: on a value out of range, naming it.

    Example:
        >>> config = StageConfig(epochs=2, batch_size=128, lr=2e-6, train="text")
        >>> StageConfig.from_json(config.to_json()) == config
        True
    """

    epochs: int
    batch_size: int
    lr: float
    train: str | tuple[str, ...] = "fusion"
    optimizer: str = "adamw"
    betas: tuple[float, float] = _BETAS
    eps: float = _EPS
    weight_decay: float | None = None
    precision: str = "fp32"
    drop_last: bool = False
    encoder_mode: str = "eval"
    metric: str | None = None
    eval_every: int = 1
    # Neither field changes what is learned, so a resumed run may change both.
    save_every: int | None = field(default=None, metadata={"free": True})
    cache: bool = True
    seed: int = 0
    workers: int | None = field(default=None, metadata={"free": True})

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("eval_every", 1), ("seed", 0)):
            _check_integer(name, getattr(self, name), least)
        for name, least in (("save_every", 1), ("workers", 0)):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), least)
        for name in ("drop_last", "cache"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        _check_choice("optimizer", self.optimizer, _OPTIMIZERS)
        _check_choice("precision", self.precision, _PRECISIONS)
        _check_choice("encoder_mode", self.encoder_mode, _ENCODER_MODES)
        _check_number("lr", self.lr, 0.0, math.inf)
        _check_number("eps", self.eps, 0.0, math.inf)
        if self.weight_decay is not None:
            _check_number("weight_decay", self.weight_decay, 0.0, math.inf)
        # JSON has no tuples.
        for name in ("betas", "train"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if not (isinstance(self.betas, tuple) and len(self.betas) == 2):
            raise ValueError(f"betas must be two numbers, got {self.betas!r}")
        for beta in self.betas:
            _check_number("betas", beta, 0.0, 1.0)
        if self.optimizer == "sgd" and (self.betas, self.eps) != (_BETAS, _EPS):
            raise ValueError("optimizer='sgd' has no betas and no eps: leave them out")
        patterns = (self.train,) if isinstance(self.train, str) else self.train
        if not (isinstance(patterns, tuple) and patterns) or not all(
            isinstance(pattern, str) and pattern for pattern in patterns
        ):
            raise ValueError(f"train must be a name or a tuple of names, got {self.train!r}")
        if not isinstance(self.metric, str | None):
            raise ValueError(f"metric must be the name of a metric, got {self.metric!r}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: on an unknown field, listing the valid ones, or a missing one.
        """
        valid = [f.name for f in fields(cls)]
        if unknown := [name for name in values if name not in valid]:
            raise ValueError(f"unknown settings {unknown}; valid: {', '.join(valid)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from None

    def to_json(self) -> str:
        """The fields as a JSON object."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of ``to_json``; raises ValueError as ``from_dict`` does."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"expected a JSON object, got {values!r}")
        return cls.from_dict(values)

    def fixed(self) -> dict[str, Any]:
        """The fields that a resumed run must share."""
        free = {f.name for f in fields(self) if f.metadata.get("free")}
        return {name: value for name, value in self.to_dict().items() if name not in free}


def _check_integer(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low <= value < high):
        raise ValueError(f"{name} must be a number in [{low}, {high}), got {value!r}")


def _check_choice(name: str, value: Any, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ValueError(f"unknown {name} {value!r}; valid: {', '.join(map(repr, valid))}")

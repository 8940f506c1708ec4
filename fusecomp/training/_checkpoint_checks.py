"""Checks of what a file claims to be a checkpoint of this training; nothing is put back yet."""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusecomp._core.weights import shared_bytes


class WrongEntry(Exception):
    """An entry of a checkpoint that this training has not written; the message names it."""


@contextmanager
def checked(path: Path) -> Iterator[None]:
    """Raise the ``WrongEntry`` of the checks inside as ValueError that names file and way out."""
    try:
        yield
    except WrongEntry as error:
        raise ValueError(
            f"{path} is no checkpoint of this training: {error}; it was damaged or changed after "
            "it was written; give another workdir to begin anew"
        ) from None


def check_like(name: str, value: object, like: object) -> None:
    """Refuse what has other names, kinds, shapes or dtypes than what would be written now."""
    if type(value) is not type(like):
        raise WrongEntry(f"{name} is a {type(value).__name__}, not a {type(like).__name__}")
    if isinstance(like, Mapping):
        for entry, inner in check_names(name, value, like).items():
            check_like(_inside(name, entry), inner, like[entry])
    elif isinstance(value, Tensor) and isinstance(like, Tensor):
        if value.layout != torch.strided:
            raise WrongEntry(f"{name} is no dense tensor")
        kind, expected = (f"{tensor.dtype} {list(tensor.shape)}" for tensor in (value, like))
        if kind != expected:
            raise WrongEntry(f"{name} is {kind}, expected {expected}")
        if not bool(value.isfinite().all()) and bool(like.isfinite().all()):
            raise WrongEntry(f"{name} holds NaN or infinity")
    elif isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
        raise WrongEntry(f"{name} is {value}")


def check_names(name: str, value: object, names: Collection[str]) -> dict[str, Any]:
    """Refuse what is no dict of exactly these names; return it."""
    if not isinstance(value, dict):
        raise WrongEntry(f"{name} is a {type(value).__name__}, not a dict")
    for entry in value.keys() ^ set(names):
        problem = "does not belong there" if entry in value else "is missing"
        raise WrongEntry(f"{_inside(name, entry)} {problem}")
    return value


def check_own_bytes(state: Mapping[str, object]) -> None:
    """Refuse tensors that share memory: training would write into two of them at once."""
    for pair in shared_bytes(dict(_tensors(state, ""))):
        raise WrongEntry(f"{' and '.join(pair)} are the same bytes")


def check_optimizer(
    state: object, parameters: Mapping[str, nn.Parameter], adam: bool, steps: int
) -> None:
    """Refuse a state of an optimiser that its own update would not have made.

    Its kernels do not check shapes: a moment of another shape is memory that is not its own.
    """
    for name, values in check_names("optimizer", state, parameters).items():
        if values == {}:  # no gradient so far
            continue
        like: dict[str, Tensor] = {}
        if adam:
            moment = torch.zeros((), dtype=parameters[name].dtype).expand(parameters[name].shape)
            like = {"step": torch.tensor(0.0), "exp_avg": moment, "exp_avg_sq": moment}
        name = _inside("optimizer", name)
        check_like(name, values, like)
        if not 1 <= float(values["step"]) <= steps:
            raise WrongEntry(f"{name}, step is {float(values['step'])} of {steps} steps")
        if bool((values["exp_avg_sq"] < 0).any()):
            raise WrongEntry(f"{name}, exp_avg_sq is negative")


def check_history(history: object, epochs: int) -> None:
    """Refuse a history that is not one record of numbers for each epoch that was made."""
    if not isinstance(history, list) or len(history) != epochs:
        raise WrongEntry(f"history is not that of {epochs} epochs")
    for number, record in enumerate(history, start=1):
        numbers = isinstance(record, dict) and all(
            isinstance(name, str) and type(value) in (int, float) and math.isfinite(value)
            for name, value in record.items()
        )
        if not numbers or record.get("epoch") != number:
            raise WrongEntry(f"history, entry {number} is no record of that epoch")


def _tensors(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for entry, inner in value.items():
            yield from _tensors(inner, _inside(name, entry))


def _inside(name: str, entry: str) -> str:
    return f"{name}, {entry}" if name else entry

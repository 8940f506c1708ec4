"""Checks of what a file claims to be a checkpoint of this training; nothing is put back yet."""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusecomp._core.weights import shared_bytes
from fusecomp.distributed import whole
from fusecomp.training._progress import Record

_WAY_OUT = "it was damaged or changed after it was written; give another workdir to begin anew"


def check_like(path: Path, name: str, value: object, like: object) -> None:
    """Refuse what has other names, kinds, shapes or dtypes than what would be written now.

    Args:
        path: the file that the value comes from.
        name: what the value is called; empty for the whole file.
        value: mappings, tensors and plain values.
        like: the same of this training.

    Raises:
        ValueError: naming file, place and what is wrong with it.
    """
    if type(value) is not type(like):
        raise wrong_checkpoint(
            path, name, f"is a {type(value).__name__}, not a {type(like).__name__}"
        )
    if isinstance(like, Mapping):
        for entry, inner in check_names(path, name, value, like).items():
            check_like(path, _inside(name, entry), inner, like[entry])
    elif isinstance(like, Tensor):
        _check_tensor(path, name, value, like)
    elif isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
        raise wrong_checkpoint(path, name, f"is {value}")


def check_names(path: Path, name: str, value: object, names: Collection[str]) -> dict[str, Any]:
    """Refuse what is no dict of exactly these names; return it."""
    if not isinstance(value, dict):
        raise wrong_checkpoint(path, name, f"is a {type(value).__name__}, not a dict")
    for entry in value.keys() ^ set(names):
        there = "does not belong there" if entry in value else "is missing"
        raise wrong_checkpoint(path, _inside(name, entry), there)
    return value


def check_own_bytes(path: Path, state: Mapping[str, object]) -> None:
    """Refuse tensors that share memory: training would write into two of them at once."""
    for pair in shared_bytes(dict(_tensors(state, ""))):
        raise wrong_checkpoint(path, " and ".join(pair), "are the same bytes")


def _tensors(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for entry, inner in value.items():
            yield from _tensors(inner, _inside(name, entry))


def _inside(name: str, entry: str) -> str:
    return f"{name}, {entry}" if name else entry


def _check_tensor(path: Path, name: str, value: object, like: Tensor) -> None:
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise wrong_checkpoint(path, name, f"is no dense tensor, expected {_kind(like)}")
    if value.shape != like.shape or value.dtype != like.dtype:
        raise wrong_checkpoint(path, name, f"is {_kind(value)}, expected {_kind(like)}")
    if not bool(value.isfinite().all()) and bool(like.isfinite().all()):
        raise wrong_checkpoint(path, name, "holds NaN or infinity")


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def check_optimizer(
    path: Path,
    state: object,
    parameters: Mapping[str, nn.Parameter],
    entries: Sequence[str],
    steps: int,
) -> None:
    """Refuse a state of an optimiser that its own update would not have made.

    Its kernels do not check shapes: a moment of another shape is memory that is not its own. The
    state of a parameter is empty without a gradient so far; ``entries`` are the names next to
    ``step``, each of the parameter's shape.
    """
    for name, values in check_names(path, "optimizer", state, parameters).items():
        where = _inside("optimizer", name)
        if values == {}:
            continue
        if not isinstance(values, dict):
            raise wrong_checkpoint(path, where, f"is a {type(values).__name__}, not a dict")
        like = dict.fromkeys(entries, whole(parameters[name]).detach().cpu())
        if "step" in values:
            like["step"] = torch.tensor(0.0)
        on_cpu = {n: v.cpu() if isinstance(v, Tensor) else v for n, v in values.items()}
        check_like(path, where, on_cpu, like)
        if "step" in values and not 1 <= float(values["step"]) <= steps:
            raise wrong_checkpoint(
                path, _inside(where, "step"), f"is {float(values['step'])} of {steps} steps"
            )
        if "exp_avg_sq" in values and bool((values["exp_avg_sq"] < 0).any()):
            raise wrong_checkpoint(path, _inside(where, "exp_avg_sq"), "is negative")


def check_history(path: Path, history: object, epochs: int) -> None:
    """Refuse a history that is not one record of numbers for each epoch that was made."""
    if not isinstance(history, list) or len(history) != epochs:
        raise wrong_checkpoint(path, "history", f"is not that of {epochs} epochs")
    for number, record in enumerate(history, start=1):
        numbers = isinstance(record, dict) and all(
            isinstance(name, str)
            and isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            for name, value in record.items()
        )
        if not numbers or record.get("epoch") != number:
            raise wrong_checkpoint(path, f"history, entry {number}", "is no record of that epoch")


def check_best(path: Path, best: object, metrics: Sequence[str], history: Sequence[Record]) -> None:
    """Refuse best weights that the history does not know, or whose names lead elsewhere."""
    for metric, entries in check_names(path, "best", best, metrics).items():
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise wrong_checkpoint(path, f"best, {metric}", f"is {entries!r}")
        for entry in entries:
            record = entry.get("record")
            known = record in history and entry.get("value") == record.get(metric)
            name = entry.get("name")
            if not known or not isinstance(name, str) or not re.fullmatch(r"[\w-]+\.pt", name):
                raise wrong_checkpoint(
                    path, f"best, {metric}", f"names {name!r}, which no epoch has made"
                )
            if not (path.parent / "best" / name).is_file():
                raise wrong_checkpoint(
                    path, f"best, {metric}", f"names {name!r}, but best/ has no such file"
                )


def wrong_checkpoint(path: Path, name: str, problem: str) -> ValueError:
    """Word the error about an entry of a checkpoint."""
    return ValueError(f"{path} is no checkpoint of this training: {name} {problem}; {_WAY_OUT}")

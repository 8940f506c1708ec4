"""What a checkpoint holds: taken from a training, checked against it, and put back."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusecomp._core.weights import shared_bytes
from fusecomp.distributed import shard_like, whole

__all__ = [
    "check_best",
    "check_history",
    "check_like",
    "check_optimizer",
    "check_own_bytes",
    "collect",
    "collect_optimizer",
    "optimizer_entries",
    "restore",
    "restore_optimizer",
]

_WAY_OUT = "it was damaged or changed after it was written; give another workdir to begin anew"


def collect(
    model: nn.Module, loss: nn.Module | None, learning: Mapping[str, Any]
) -> dict[str, Any]:
    """Copy all that training changes: learning weights, and buffers such as BatchNorm's."""
    frozen = {name for name, _ in model.named_parameters()} - set(learning)
    weights = {name: value for name, value in model.state_dict().items() if name not in frozen}
    return {"model": _copies(weights), "loss": _copies(loss.state_dict()) if loss else {}}


def restore(model: nn.Module, loss: nn.Module | None, weights: Mapping[str, Any]) -> None:
    """Put ``collect``'s copies back, after ``check_like``."""
    own = model.state_dict()
    saved = {name: shard_like(value, own[name]) for name, value in weights["model"].items()}
    model.load_state_dict(saved, strict=False)
    if loss is not None:
        loss.load_state_dict(weights["loss"])


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole(value).detach().to("cpu", copy=True) for name, value in tensors.items()}


def collect_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Any]]:
    """The state of an optimiser by the names of all its parameters, whole on every process."""
    return {
        name: {
            n: whole(v) if isinstance(v, Tensor) else v
            for n, v in optimizer.state.get(p, {}).items()
        }
        for name, p in parameters.items()
    }


def optimizer_entries(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """Name what an optimiser keeps for a parameter, beside the count of its steps."""
    adam = (torch.optim.Adam, torch.optim.AdamW)
    return ("exp_avg", "exp_avg_sq") if isinstance(optimizer, adam) else ()


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    state: Mapping[str, Mapping[str, Any]],
) -> None:
    """Put what ``collect_optimizer`` gave back, after ``check_optimizer``."""
    own = optimizer.state_dict()
    members = (p for group in optimizer.param_groups for p in group["params"])
    numbers = {parameter: number for number, parameter in enumerate(members)}
    for name, values in state.items():
        if not values:  # of a parameter that has had no gradient yet
            continue
        like = parameters[name]
        own["state"][numbers[like]] = {
            # The count of steps is no part of the parameter.
            n: shard_like(v, like) if getattr(v, "shape", None) == like.shape else v
            for n, v in values.items()
        }
    optimizer.load_state_dict(own)


def check_like(path: Path, name: str, value: Any, like: Any) -> None:
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
        raise _wrong(path, name, f"is a {type(value).__name__}, not a {type(like).__name__}")
    if isinstance(like, Mapping):
        for entry in value.keys() ^ like.keys():
            there = "does not belong there" if entry in value else "is missing"
            raise _wrong(path, _inside(name, entry), there)
        for entry, inner in like.items():
            check_like(path, _inside(name, entry), value[entry], inner)
    elif isinstance(like, Tensor):
        _check_tensor(path, name, value, like)
    elif isinstance(like, int | float) and not (math.isfinite(value) and value >= 0):
        raise _wrong(path, name, f"is {value}")


def check_own_bytes(path: Path, state: Mapping[str, Any]) -> None:
    """Refuse tensors that share memory: training would write into two of them at once."""
    for pair in shared_bytes(dict(_tensors(state, ""))):
        raise _wrong(path, " and ".join(pair), "are the same bytes")


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for entry, inner in value.items():
            yield from _tensors(inner, _inside(name, entry))


def _inside(name: str, entry: str) -> str:
    return f"{name}, {entry}" if name else entry


def _check_tensor(path: Path, name: str, value: Any, like: Tensor) -> None:
    dense = isinstance(value, Tensor) and value.layout == torch.strided
    if not dense or value.shape != like.shape or value.dtype != like.dtype:
        found = f"{value.dtype} {list(value.shape)}" if dense else "no dense tensor"
        raise _wrong(path, name, f"is {found}, expected {like.dtype} {list(like.shape)}")
    if not bool(value.isfinite().all()) and bool(like.isfinite().all()):
        raise _wrong(path, name, "holds NaN or infinity")


def check_optimizer(
    path: Path,
    state: Any,
    parameters: Mapping[str, nn.Parameter],
    entries: Sequence[str],
    steps: int,
) -> None:
    """Refuse a state of an optimiser that its own update would not have made.

    Its kernels do not check shapes: a moment of another shape is memory that is not its own.

    Args:
        path: the file that the state comes from.
        state: by parameter, the entries of its state; empty without a gradient so far.
        parameters: what learns, by name.
        entries: the names of the entries beside ``step``, each of the parameter's shape.
        steps: how many steps the training has made.

    Raises:
        ValueError: naming file, parameter and entry.
    """
    check_like(path, "optimizer", dict.fromkeys(state, 0), dict.fromkeys(parameters, 0))
    for name, values in state.items():
        place = _inside("optimizer", name)
        if values == {}:
            continue
        like: dict[str, Any] = dict.fromkeys(entries, whole(parameters[name]).detach().cpu())
        if "step" in values:
            like["step"] = torch.tensor(0.0)
        check_like(path, place, {n: _on_cpu(value) for n, value in values.items()}, like)
        if "step" in values and not 1 <= float(values["step"]) <= steps:
            raise _wrong(
                path, _inside(place, "step"), f"is {float(values['step'])} of {steps} steps"
            )
        if "exp_avg_sq" in values and bool((values["exp_avg_sq"] < 0).any()):
            raise _wrong(path, _inside(place, "exp_avg_sq"), "is negative")


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def check_history(path: Path, history: Any, epochs: int) -> None:
    """Refuse a history that is not one record of numbers for each epoch that was made."""
    if not isinstance(history, list) or len(history) != epochs:
        raise _wrong(path, "history", f"is not that of {epochs} epochs")
    for number, record in enumerate(history, start=1):
        numbers = isinstance(record, dict) and all(
            isinstance(name, str)
            and isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            for name, value in record.items()
        )
        if not numbers or record.get("epoch") != number:
            raise _wrong(path, f"history, entry {number}", "is no record of that epoch")


def check_best(
    path: Path, best: Any, metrics: Sequence[str], history: Sequence[Mapping[str, float]]
) -> None:
    """Refuse best weights that the history does not know, or whose names lead elsewhere."""
    check_like(path, "best", dict.fromkeys(best, 0), dict.fromkeys(metrics, 0))
    for metric, entries in best.items():
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise _wrong(path, f"best, {metric}", f"is {entries!r}")
        for entry in entries:
            record = entry.get("record")
            known = record in history and entry.get("value") == record.get(metric)
            name = entry.get("name")
            if not known or not isinstance(name, str) or not re.fullmatch(r"[\w-]+\.pt", name):
                raise _wrong(path, f"best, {metric}", f"names {name!r}, which no epoch has made")
            if not (path.parent / "best" / name).is_file():
                raise _wrong(path, f"best, {metric}", f"names {name!r}, but best/ has no such file")


def _wrong(path: Path, name: str, problem: str) -> ValueError:
    return ValueError(f"{path} is no checkpoint of this training: {name} {problem}; {_WAY_OUT}")

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusecomp.distributed import barrier, first_alone, gather_objects, shard_like, whole
from fusecomp.files import open_atomic, read_tensors, write_json, write_tensors

__all__ = ["Workdir", "collect", "collect_optimizer", "restore", "restore_optimizer"]

_FORMAT = "fusecomp.training/1"
# What to do where it is no setting that differs.
_WAY_BACK = {
    "frozen weights": "Load the same ones, or call torch.manual_seed before making them as then",
}


def collect(
    model: nn.Module, loss: nn.Module | None, learning: Mapping[str, Any]
) -> dict[str, Any]:
    """Copies of all that training changes: learning weights, and buffers such as BatchNorm's."""
    frozen = {name for name, _ in model.named_parameters()} - set(learning)
    weights = {name: value for name, value in model.state_dict().items() if name not in frozen}
    return {"model": _copies(weights), "loss": _copies(loss.state_dict()) if loss else {}}


def restore(model: nn.Module, loss: nn.Module | None, weights: Mapping[str, Any]) -> None:
    """Put ``collect``'s copies back."""
    own = model.state_dict()
    saved = {name: shard_like(value, own.get(name)) for name, value in weights["model"].items()}
    unknown = model.load_state_dict(saved, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the checkpoint holds weights that the model lacks: {unknown[:3]}")
    if loss is not None:
        loss.load_state_dict(weights["loss"])


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole(value).detach().to("cpu", copy=True) for name, value in tensors.items()}


def collect_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Any]]:
    """The state of an optimiser by the names of its parameters, whole on every process."""
    return {
        name: {n: whole(v) if isinstance(v, Tensor) else v for n, v in optimizer.state[p].items()}
        for name, p in parameters.items()
        if p in optimizer.state
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    state: Mapping[str, Mapping[str, Any]],
) -> None:
    """Put what ``collect_optimizer`` gave back; the groups stay as they are."""
    own = optimizer.state_dict()
    members = (p for group in optimizer.param_groups for p in group["params"])
    numbers = {parameter: number for number, parameter in enumerate(members)}
    for name, values in state.items():
        like = parameters[name]
        own["state"][numbers[like]] = {
            # The count of steps is no part of the parameter.
            n: shard_like(v, like) if getattr(v, "shape", None) == like.shape else v
            for n, v in values.items()
        }
    optimizer.load_state_dict(own)


class Workdir:
    """The files of one stage: ``config.json``, ``last.pt``, ``best/*.pt`` and ``log.jsonl``.

    What is half written has another name, and a later run removes it. Of many processes the first
    writes, the others wait.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        # The best weights that ``last.pt`` speaks of.
        self.needed: set[str] = set()
        self._identity = dict(identity)

    def load_last(self) -> dict[str, Any] | None:
        """The state to go on from, or None in a new folder.

        Raises:
            ValueError: if the folder belongs to another run, naming what differs, or only some
                processes see its checkpoint.
        """
        path = self.path / "last.pt"
        found = gather_objects(path.exists())
        if any(found) and not all(found):
            blind = [number for number, there in enumerate(found) if not there]
            raise ValueError(
                f"processes {blind} do not see {path}, the others do: give a workdir on a disk "
                "that all share"
            )
        self._sweep()
        if not found[0]:
            return None
        state = self._read(path)
        # The first process may soon write the next one.
        barrier()
        saved = state["identity"]
        for name in sorted(saved.keys() | self._identity.keys()):
            old, new = saved.get(name), self._identity.get(name)
            if old != new:
                raise ValueError(
                    f"{self.path} belongs to another run: {name} was {old!r} and is now {new!r}. "
                    f"{_WAY_BACK.get(name, 'Go on with the old settings')}, or give another workdir"
                )
        return state

    def _sweep(self) -> None:
        """Remove what a kill has left half written."""
        with first_alone() as first:
            if first:
                for folder in (self.path, self.path / "best"):
                    for path in folder.glob(".*.partial"):
                        path.unlink(missing_ok=True)

    def load_best(self, name: str) -> dict[str, Any]:
        """Weights that ``save_best`` wrote."""
        return self._read(self.path / "best" / name)

    def _read(self, path: Path) -> dict[str, Any]:
        state = read_tensors(path)
        if state.get("format") != _FORMAT:
            raise ValueError(f"{path} is no training checkpoint of this version")
        return state

    def save_config(self, config: Mapping[str, Any]) -> None:
        """For people; resuming looks at ``last.pt``."""
        with first_alone() as first:
            if first:
                write_json(self.path / "config.json", config)

    def save_best(self, name: str, weights: Mapping[str, Any]) -> None:
        """Write ``best/NAME``."""
        with first_alone() as first:
            if first:
                write_tensors(self.path / "best" / name, {"format": _FORMAT, **weights})

    def save_last(self, state: Mapping[str, Any], history: Sequence[Any], best: set[str]) -> None:
        """Write ``last.pt`` and the log; then remove the best weights that are no longer so."""
        content = {"format": _FORMAT, "identity": self._identity, "history": history, **state}
        with first_alone() as first:
            if first:
                write_tensors(self.path / "last.pt", content)
                with open_atomic(self.path / "log.jsonl") as log:
                    log.writelines(f"{json.dumps(record)}\n".encode() for record in history)
        self.needed = best
        self.remove_best_but(best)

    def remove_best_but(self, best: set[str]) -> None:
        """Remove the best weights that are no longer so, and not needed to resume either."""
        with first_alone() as first:
            if first:
                for path in (self.path / "best").glob("*.pt"):
                    if path.name not in best | self.needed:
                        path.unlink(missing_ok=True)

"""A checkpoint that was torn, tampered with or made by something else is refused whole."""

import builtins
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import fit
from stopping import Stop
from torch import Tensor
from toy import DIM, NormedSum, Toy, assert_equal_weights, composed, encoder

import fusecomp as fc
from fusecomp._core.files import read_tensors, write_tensors


class StopAtCheckpoint:
    """Stops at the first checkpoint."""

    def on_checkpoint(self, trainer: fc.Trainer, path: Path) -> None:
        raise Stop


class Idle:
    """Takes the place of the callback above."""

    def on_end(self, trainer: fc.Trainer, run: fc.Run) -> None:
        """Do nothing."""


def train(root: Path, callback: Any) -> fc.Run:
    torch.manual_seed(0)
    return fit(
        root,
        model=fc.ComposedEncoder(encoder(), NormedSum()),
        loss=fc.InfoNCE(memory=fc.losses.Queue(8, DIM)),
        validation=Toy(root),
        callbacks=[callback],
        epochs=3,
        ema_decay=0.9,
    )


WEIGHT = "fusion.norm.weight"


def put(*place: Any) -> Callable[[Any], Callable[[dict[str, Any]], Any]]:
    """Something else at a place of the state."""

    def change_to(value: Any) -> Callable[[dict[str, Any]], Any]:
        def change(state: dict[str, Any]) -> None:
            for name in place[:-1]:
                state = state[name]
            old = state.get(place[-1]) if isinstance(state, dict) else state[place[-1]]
            state[place[-1]] = value(old) if callable(value) else value

        return change

    return change_to


def without(*place: Any) -> Callable[[dict[str, Any]], Any]:
    def change(state: dict[str, Any]) -> None:
        for name in place[:-1]:
            state = state[name]
        del state[place[-1]]

    return change


def nan(old: Tensor) -> Tensor:
    return torch.full_like(old, torch.nan)


TAMPERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{
        f"no {part}": without(part)
        for part in ("epoch", "batch", "steps", "sums", "weights", "average", "optimizer", "scaler")
    },
    **{f"no {part}": without(part) for part in ("callbacks", "history", "identity")},
    "another part": put("more")(1),
    "no weight": without("weights", "model", WEIGHT),
    "one more weight": put("weights", "model", "x")(torch.ones(1)),
    "weight of another shape": put("weights", "model", WEIGHT)(torch.ones(1)),
    "weight of another dtype": put("weights", "model", WEIGHT)(lambda t: t.double()),
    "weight of integers": put("weights", "model", WEIGHT)(lambda t: t.long()),
    "complex weight": put("weights", "model", WEIGHT)(lambda t: t + 0j),
    "weight of NaN": put("weights", "model", WEIGHT)(nan),
    "weight that is a list": put("weights", "model", WEIGHT)([1.0] * DIM),
    "weight that is none": put("weights", "model", WEIGHT)(None),
    "buffer of another shape": put("weights", "model", "fusion.norm.running_var")(torch.ones(1)),
    "loss without its queue": put("weights", "loss")({}),
    "average without a weight": without("average", WEIGHT),
    "average of another shape": put("average", WEIGHT)(torch.ones(2, 3)),
    "no average": put("average")(None),
    "no moments of a weight": without("optimizer", WEIGHT),
    "moment of another shape": put("optimizer", WEIGHT, "exp_avg")(torch.zeros(1)),
    "moment of another dtype": put("optimizer", WEIGHT, "exp_avg")(lambda t: t.half()),
    "moment that is missing": without("optimizer", WEIGHT, "exp_avg_sq"),
    "moment below zero": put("optimizer", WEIGHT, "exp_avg_sq")(lambda t: t - 1),
    "moment of NaN": put("optimizer", WEIGHT, "exp_avg")(nan),
    "moments that share their bytes": lambda state: state["optimizer"][WEIGHT].update(
        exp_avg=state["optimizer"][WEIGHT]["exp_avg_sq"]
    ),
    "moments of a stranger": put("optimizer", "stranger")({}),
    "count that is too high": put("optimizer", WEIGHT, "step")(torch.tensor(1e6)),
    "count of another shape": put("optimizer", WEIGHT, "step")(torch.ones(2)),
    "epoch as text": put("epoch")("1"),
    "epoch beyond the end": put("epoch")(9),
    "epoch below zero": put("epoch")(-1),
    "epoch that is true": put("epoch")(True),
    "batch that does not fit": put("batch")(2),
    "steps that do not fit": put("steps")(7),
    "sums of text": put("sums", "loss")("0"),
    "sums of NaN": put("sums", "loss")(torch.nan),
    "scaler of a list": put("scaler")([]),
    "history of no epoch": put("history")([]),
    "history of text": put("history")("x"),
    "record of text": put("history", 0, "loss")("x"),
    "record of NaN": put("history", 0, "loss")(torch.nan),
    "record of another epoch": put("history", 0, "epoch")(2),
    "callbacks of another number": put("callbacks")([]),
    "callbacks that are no list": put("callbacks")(3),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stop):
        train(root, StopAtCheckpoint())
    return root


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_checkpoint_that_does_not_fit_is_refused_whole(
    stopped: Path, tamper: Callable[[dict[str, Any]], Any]
) -> None:
    last = stopped / "run" / "last.pt"
    before = last.read_bytes()
    state = read_tensors(last)
    tamper(state)
    write_tensors(last, state)
    try:
        with pytest.raises(ValueError, match=r"last\.pt"):
            train(stopped, Idle())
    finally:
        last.write_bytes(before)


def test_a_checkpoint_without_its_best_weights_is_refused(stopped: Path) -> None:
    (best,) = (stopped / "run" / "best").iterdir()
    weights = best.read_bytes()
    best.unlink()
    try:
        with pytest.raises(ValueError, match=rf"last\.pt .* best/{best.name} .* missing"):
            train(stopped, Idle())
    finally:
        best.write_bytes(weights)


def test_the_checkpoint_as_it_was_is_taken(stopped: Path, tmp_path: Path) -> None:
    """So that the refusals above are those of what was changed."""
    straight = train(tmp_path, Idle())
    last = stopped / "run" / "last.pt"
    write_tensors(last, read_tensors(last))
    assert_equal_weights(straight.model, train(stopped, Idle()).model)


def test_nothing_is_restored_of_what_is_refused(tmp_path: Path) -> None:
    fit(tmp_path)
    last = tmp_path / "run" / "last.pt"
    state = read_tensors(last)
    put("history")([])(state)
    write_tensors(last, state)
    fresh = composed()
    before = copy.deepcopy(fresh)
    with pytest.raises(ValueError, match=r"last\.pt"):
        fit(tmp_path, model=fresh)
    assert_equal_weights(before, fresh)


def test_a_torn_checkpoint_is_named(tmp_path: Path) -> None:
    fit(tmp_path)
    path = tmp_path / "run" / "last.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"last\.pt is not a readable checkpoint"):
        fit(tmp_path)


class Hostile:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return builtins.exec, (f"open({str(self.path)!r}, 'w').close()",)


def test_a_hostile_checkpoint_does_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "run" / "last.pt", tmp_path / "trace"
    path.parent.mkdir()
    torch.save({"format": Hostile(trace)}, path)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        fit(tmp_path)
    assert not trace.exists()


def test_a_checkpoint_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.pt"
    path.parent.mkdir()
    torch.save({"epoch": 3}, path)
    with pytest.raises(ValueError, match="no training checkpoint"):
        fit(tmp_path)

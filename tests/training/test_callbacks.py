"""Hooks, and the log."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from eight_steps import CONFIG, fit
from torch import Tensor
from toy import Toy

import fusecomp as fc


class Journal:
    """Every hook, and a state."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, trainer: fc.Trainer) -> None:
        self.calls.append("start")

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        assert loss.ndim == 0
        self.calls.append("step")

    def on_evaluation(self, trainer: fc.Trainer, evaluation: fc.Evaluation) -> None:
        assert evaluation.default_metric in evaluation
        self.calls.append("evaluation")

    def on_epoch(self, trainer: fc.Trainer, record: dict[str, float]) -> None:
        assert record["epoch"] == trainer.epoch
        assert record["mean"] >= 0
        self.calls.append("epoch")

    def on_checkpoint(self, trainer: fc.Trainer, path: Path) -> None:
        assert path.exists()
        self.calls.append("checkpoint")

    def on_end(self, trainer: fc.Trainer, run: fc.Run) -> None:
        self.calls.append("end")

    def state_dict(self) -> list[str]:
        return list(self.calls)

    def load_state_dict(self, state: list[str]) -> None:
        self.calls = list(state)


def test_every_hook_is_called_in_its_place_and_states_survive(tmp_path: Path) -> None:
    data, folder = Toy(tmp_path), tmp_path / "run"
    journal = Journal()
    config = replace(CONFIG, epochs=2)
    fit(tmp_path, config, validation=data, workdir=folder, callbacks=[journal])
    epoch = ["step", "step", "evaluation", "epoch", "checkpoint"]
    assert journal.calls == ["start", *epoch, *epoch, "end"]
    later = Journal()
    fit(tmp_path, config, validation=data, workdir=folder, callbacks=[later])
    # The state is that of the last checkpoint, before its own hook.
    assert later.calls == [*journal.calls[:-2], "start", "end"]
    with pytest.raises(ValueError, match="written with 1 callbacks, now there are 0"):
        fit(tmp_path, config, validation=data, workdir=folder)


def test_a_hook_that_is_none_is_named(tmp_path: Path) -> None:
    class Mistyped:
        def on_epochs(self) -> None: ...

    with pytest.raises(TypeError, match=r"Mistyped has unknown hooks \['on_epochs'\]; valid: on_"):
        fit(tmp_path, CONFIG, callbacks=[Mistyped()])
    with pytest.raises(TypeError, match="callback object has no hook; valid: on_start"):
        fit(tmp_path, CONFIG, callbacks=[object()])
    with pytest.raises(TypeError, match="callback Journal is a class: pass an instance"):
        fit(tmp_path, CONFIG, callbacks=[Journal])


def test_callbacks_may_come_from_a_generator(tmp_path: Path) -> None:
    journal = Journal()
    config = replace(CONFIG, epochs=1)
    fit(tmp_path, config, validation=Toy(tmp_path), callbacks=(c for c in [journal]))
    assert journal.calls == ["start", "step", "step", "evaluation", "epoch", "end"]


def test_the_log_has_a_line_for_each_epoch(tmp_path: Path) -> None:
    run = fit(tmp_path, CONFIG, workdir=tmp_path / "run")
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(run.history)
    assert all(record["gradient_norm"] > 0 for record in run.history)

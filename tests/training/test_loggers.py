"""Callbacks that show or write what training does, with the real packages where they are."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eight_steps import CONFIG, fit
from processes import Processes
from toy import Toy

from fusecomp.training import TensorBoardLog, TqdmBar, WandbLog

STEPS, EPOCHS = 8, 4


class Tape:
    """Stands for any of the three objects: remembers every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name == "config":
            return self
        return lambda *args, **named: self.calls.append((name, args, named))

    def of(self, name: str) -> list[Any]:
        return [args for called, args, _ in self.calls if called == name]


def test_tqdm_shows_the_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tqdm = pytest.importorskip("tqdm", reason="needs the extra tqdm")
    screen, workdir = io.StringIO(), tmp_path / "run"
    config = replace(CONFIG, epochs=EPOCHS)

    def run() -> str:
        bar = tqdm.tqdm(unit="step", file=screen, mininterval=0, ascii=True)
        fit(tmp_path, config, workdir=workdir, callbacks=[TqdmBar(bar)])
        return screen.getvalue().rpartition("\r")[2]

    assert f"100%|##########| {STEPS}/{STEPS} " in run()
    assert "loss=" in screen.getvalue()
    # The same call again has nothing to do, and shows it as done.
    assert f"100%|##########| {STEPS}/{STEPS} " in run()
    assert capsys.readouterr().err == ""


def test_tensorboard_can_read_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "board") as writer:
        log = TensorBoardLog(writer, every_steps=2)
        run = fit(tmp_path, CONFIG, validation=Toy(tmp_path), callbacks=[log])
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [event.step for event in events.Scalars("step/loss")] == [2, 4, 6, 8]
    for name in ("loss", "lr", "recall@1", "mean", "gradient_norm"):
        assert [event.step for event in events.Scalars(name)] == [2, 4, 6, 8]
        values = [event.value for event in events.Scalars(name)]
        assert values == pytest.approx([record[name] for record in run.history])


def test_wandb_gets_settings_steps_and_epochs(tmp_path: Path) -> None:
    tape = Tape()
    run = fit(tmp_path, CONFIG, callbacks=[WandbLog(tape, every_steps=4)])
    assert tape.of("update") == [(CONFIG.to_dict(),)]
    assert [named for name, _, named in tape.calls if name == "define_metric"] == [
        {"step_metric": "step"}
    ]
    logged = [dict(values) for (values,) in tape.of("log")]
    steps = [values.pop("step") for values in logged]
    assert steps == [2, 4, 4, 6, 8, 8]
    assert [values for values in logged if "epoch" in values] == list(run.history)
    assert [list(values) for values in logged if "epoch" not in values] == [["step/loss"]] * 2


def test_a_second_stage_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    tape, board = Tape(), Tape()
    loggers = [WandbLog(tape, 4), TensorBoardLog(board, 4)]
    for _ in range(2):
        fit(tmp_path, CONFIG, callbacks=loggers)
    assert [v["step"] for (v,) in tape.of("log") if "step/loss" in v] == [4, 8, 12, 16]
    assert [step for name, _, step in board.of("add_scalar") if name == "step/loss"] == [
        4,
        8,
        12,
        16,
    ]


def test_a_bar_shows_a_second_stage_too(tmp_path: Path) -> None:
    tqdm = pytest.importorskip("tqdm", reason="needs the extra tqdm")
    screen = io.StringIO()
    bar = tqdm.tqdm(unit="step", file=screen, mininterval=0, ascii=True)
    for epochs in (1, EPOCHS):
        fit(tmp_path, replace(CONFIG, epochs=epochs), callbacks=[TqdmBar(bar)])
    assert f"100%|##########| {STEPS}/{STEPS} " in screen.getvalue().rpartition("\r")[2]


def logged(root: Path) -> list[int]:
    """How often each object is called."""
    tapes = [Tape(), Tape(), Tape()]
    loggers = [TqdmBar(tapes[0]), TensorBoardLog(tapes[1], 1), WandbLog(tapes[2], 1)]
    fit(root, CONFIG, callbacks=loggers)
    return [len(tape.calls) for tape in tapes]


def test_only_the_first_process_logs(tmp_path: Path, two: Processes) -> None:
    first, second = two.run(logged, tmp_path)
    assert all(first)
    assert second == [0, 0, 0]


def shown(root: Path) -> str:
    """What a training writes on standard error."""
    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", screen)
        patch.setattr("fusecomp._core.progress._SHORT_SECONDS", 0.0)
        fit(root, CONFIG)
    return screen.getvalue()


def test_only_the_first_process_shows_progress(tmp_path: Path, two: Processes) -> None:
    first, second = two.run(shown, tmp_path)
    assert "training fusion: 8/8 steps" in first
    assert second == ""

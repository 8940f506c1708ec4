"""A workdir holds one run, which may go on for more epochs, and the best weights of that run."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import fit
from toy import CONFIG, Toy, assert_equal_weights, composed

import fusecomp as fc


@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.9}, {"warmup_steps": 4}])
def test_more_epochs_go_on_where_the_run_ended(tmp_path: Path, more: dict[str, Any]) -> None:
    data = Toy(tmp_path)
    straight = fit(tmp_path, "straight", validation=data, epochs=5, **more)
    for epochs in (1, 3, 5):
        longer = fit(tmp_path, validation=data, epochs=epochs, **more)
    assert_equal_weights(straight.model, longer.model)
    assert straight.history == longer.history
    written = (tmp_path / "run" / "config.json").read_text()
    assert fc.StageConfig.from_json(written) == replace(CONFIG, epochs=5, **more)


def test_a_schedule_over_all_epochs_cannot_go_on_for_more(tmp_path: Path) -> None:
    fit(tmp_path, lr_schedule="cosine", epochs=3)
    with pytest.raises(ValueError, match=r"config.epochs was 3 and is now 4\. Only a constant"):
        fit(tmp_path, lr_schedule="cosine", epochs=4)


def test_best_weights_of_another_run_are_refused(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    for seed, name in enumerate(("run", "other")):
        fit(tmp_path, name, validation=data, seed=seed)
    best = {name: next((tmp_path / name / "best").iterdir()) for name in ("run", "other")}
    best["run"].write_bytes(best["other"].read_bytes())
    with pytest.raises(ValueError, match=f"{best['run']} holds the weights of another run"):
        fit(tmp_path, validation=data, seed=0)


def test_best_weights_of_another_epoch_are_refused(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    fit(tmp_path, validation=data, epochs=3, keep_best=2)
    one, other = sorted((tmp_path / "run" / "best").iterdir())
    kept = one.read_bytes(), other.read_bytes()
    one.write_bytes(kept[1])
    other.write_bytes(kept[0])
    with pytest.raises(ValueError, match="holds the weights of another run or epoch"):
        fit(tmp_path, validation=data, epochs=3, keep_best=2)


def test_files_of_the_user_s_own_stay_in_best(tmp_path: Path) -> None:
    data, own = Toy(tmp_path), tmp_path / "run" / "best" / "export.pt"
    fit(tmp_path, validation=data)
    own.write_bytes(b"mine")
    fit(tmp_path, validation=data, epochs=3)
    assert own.read_bytes() == b"mine"


def test_a_callback_may_change_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leave:
        def on_step(self, trainer: fc.Trainer, loss: Any) -> None:
            os.chdir(tmp_path / "elsewhere")

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    run = fit(Path(), data=Toy(tmp_path), model=composed(), callbacks=[Leave()])
    assert run.path == tmp_path / "run"
    assert list((tmp_path / "elsewhere").iterdir()) == []

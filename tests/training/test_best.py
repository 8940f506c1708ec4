"""Stopping, and the best weights."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from eight_steps import CONFIG, fit
from torch import Tensor
from toy import Toy, weights

import fusecomp as fc
from fusecomp._core.files import read_tensors
from fusecomp.training._best_weights import BestWeights


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[dict[str, float]]) -> None:
    """Validation gives these metrics, one epoch after another."""
    given = iter(scores)
    real = fc.evaluate

    def evaluate(*arguments: Any, **more: Any) -> fc.Evaluation:
        evaluation = real(*arguments, **more)
        return replace(evaluation, metrics={**evaluation.metrics, **next(given)})

    monkeypatch.setattr("fusecomp.training._trainer.evaluate", evaluate)


def means(*values: float) -> list[dict[str, float]]:
    return [{"mean": value} for value in values]


def test_it_stops_when_nothing_gets_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, means(1, 3, 3, 2, 9))
    data = Toy(tmp_path)
    config = replace(CONFIG, epochs=9, patience=2)
    run = fit(tmp_path, config, validation=data, workdir=tmp_path / "run")
    assert [record["mean"] for record in run.history] == [1, 3, 3, 2]
    assert run.metrics["epoch"] == 2
    # The same call again neither trains nor validates.
    again = fit(tmp_path, config, validation=data, workdir=tmp_path / "run")
    assert again.history == run.history


def test_several_best_weights_by_several_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(1, 9), (4, 5), (3, 7), (2, 8)]
    scripted(monkeypatch, [{"recall@1": a, "recall@5": b} for a, b in rows])
    data, folder = Toy(tmp_path), tmp_path / "run"
    config = replace(CONFIG, metric=("recall@1", "recall@5"), keep_best=2)
    states: dict[int, dict[str, Tensor]] = {}

    class Watch:
        def on_evaluation(self, trainer: fc.Trainer, evaluation: fc.Evaluation) -> None:
            states[trainer.epoch] = weights(trainer.model)

    run = fit(tmp_path, config, validation=data, workdir=folder, callbacks=[Watch()])
    kept = {path.name for path in (folder / "best").iterdir()}
    assert kept == {
        "recall-1-epoch-2.pt",
        "recall-1-epoch-3.pt",
        "recall-5-epoch-1.pt",
        "recall-5-epoch-4.pt",
    }
    saved = read_tensors(folder / "best" / "recall-5-epoch-4.pt")["weights"]["model"]
    assert all(torch.equal(saved[name], states[4][name]) for name in saved)
    assert run.metrics["epoch"] == 2
    assert all(torch.equal(w, states[2][name]) for name, w in weights(run.model).items())


def test_better_weights_do_not_pile_up_between_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint's best weights stay too, as a resumed run needs them."""
    scripted(monkeypatch, means(*range(1, 9)))
    data, folder = Toy(tmp_path), tmp_path / "run"
    there = []

    class Watch:
        def on_epoch(self, trainer: fc.Trainer, record: dict[str, float]) -> None:
            there.append(sorted(path.stem for path in (folder / "best").iterdir()))

    config = replace(CONFIG, epochs=8, save_every_steps=6)
    fit(tmp_path, config, validation=data, workdir=folder, callbacks=[Watch()])
    names = [f"mean-epoch-{epoch}" for epoch in range(9)]
    # After six steps, in the third epoch, the checkpoint knows of the second epoch's weights.
    assert there[:3] == [[names[1]], [names[2]], [names[2], names[3]]]
    assert there[4] == [names[2], names[5]]
    assert [path.stem for path in (folder / "best").iterdir()] == [names[8]]


def test_unknown_metrics_list_the_valid_ones(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    config = replace(CONFIG, metric=("recall@1", "recall@7"))
    with pytest.raises(ValueError, match=r"unknown metric 'recall@7'; valid: recall@1, recall@5"):
        fit(tmp_path, config, validation=data)
    with pytest.raises(ValueError, match="patience=3 needs a validation dataset"):
        fit(tmp_path, replace(CONFIG, patience=3))


@pytest.mark.parametrize(
    "task", ["/../../victim", "..", "a\0b", "a\ud800b", "x" * 400, "größe", "C:\\x"]
)
def test_no_name_of_a_metric_leaves_the_folder(task: str) -> None:
    metric = f"{task}/recall@1"
    best, history = BestWeights([metric], 2, None), []
    for epoch in (1, 2):
        history.append({"epoch": epoch, metric: epoch})
        best.offer(history, {"model": {"w": torch.tensor(epoch)}})
    assert len(best.names(history)) == 2
    for name in best.names(history):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,150}\.pt", name)
    weights, record = best.result(history, {})
    assert weights["model"]["w"] == 2
    assert record == {"epoch": 2, metric: 2}

"""The curves of a training, from its log."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from PIL import Image

from fusecomp.report import training_curves


def record(epoch: int, **metrics: float) -> dict[str, float]:
    return {"epoch": epoch, "loss": 1 / epoch, "gradient_norm": 2.0, "lr": 1e-3, **metrics}


def write_log(folder: Path, records: Sequence[dict[str, float]]) -> Path:
    path = folder / "log.jsonl"
    path.write_text("".join(f"{json.dumps(r)}\n" for r in records))
    return path


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is plotted: the data by label; the fixed panels have labels of matplotlib's own."""
    seen: dict[str, Any] = {}
    plot = Axes.plot

    def recorded(self: Any, x: Any, y: Any, *arguments: Any, **options: Any) -> Any:
        label = options.get("label", f"{self.get_subplotspec().num1} {len(seen)}")
        seen[label] = (x, y)
        return plot(self, x, y, *arguments, **options)

    monkeypatch.setattr(Axes, "plot", recorded)
    return seen


METRICS = {"dress/recall@10": 1.0, "mean/recall@10": 2.0, "mean": 3.0}


def test_every_series_is_drawn_over_its_epochs(tmp_path: Path, lines: dict[str, Any]) -> None:
    records = [record(1), record(2, **METRICS), record(3), record(4, **METRICS | {"mean": 2.5})]
    write_log(tmp_path, [*records[:3], records[3] | {"skipped": 2}])
    training_curves(tmp_path, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as file:
        assert file.format == "PNG"
    assert ([1, 2, 3, 4], [1, 1 / 2, 1 / 3, 1 / 4]) in lines.values()
    assert ([1, 2, 3, 4], [2.0] * 4) in lines.values()
    assert ([1, 2, 3, 4], [1e-3] * 4) in lines.values()
    assert ([2, 4], [3.0, 2.5]) in lines.values()
    assert lines["mean: 3.00 in epoch 2"] == (2, 3.0)
    labels = [label for label in lines if " in epoch " in label]
    assert labels == ["mean/recall@10: 2.00 in epoch 2", "mean: 3.00 in epoch 2"]


def test_the_metrics_of_a_task_without_a_name_are_drawn_too(
    tmp_path: Path, lines: dict[str, Any]
) -> None:
    log = write_log(
        tmp_path, [record(1, **{"recall@1": 5.0, "mean(recall@5, recall_subset@1)": 6})]
    )
    training_curves(log, tmp_path / "curves.png")
    assert "recall@1: 5.00 in epoch 1" in lines
    assert "mean(recall@5, recall_subset@1): 6.00 in epoch 1" in lines


def test_a_training_without_validation_and_with_a_protocol(tmp_path: Path) -> None:
    log = write_log(tmp_path, [record(1), record(2)])
    training_curves(log, tmp_path / "new" / "a.png")
    training_curves(log, tmp_path / "new" / "b.png", protocol={"dataset": "toy"})
    assert (tmp_path / "new/a.png").read_bytes() != (tmp_path / "new/b.png").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "log.jsonl is empty: no epoch has ended"),
        ('{"epoch": 1', "line 1: not valid JSON"),
        (f'{json.dumps(record(1))}\n{{"epoch": 2, "lo', "line 2: not valid JSON"),
        (f'{json.dumps(record(1))}\n{{"epoch": 2, "epoch": 3}}', "line 2: .*'epoch' occurs twice"),
        ('{"epoch": 1, "loss": 1' + "0" * 400 + "}", "line 1: .*no finite number in .* 'loss'"),
        ("[" * 100_000, "line 1: .*nested"),
        ('{"epoch": 1, "loss": 2}', "expected the fields epoch, loss, gradient_norm, lr"),
        ("[1, 2]", "line 1: no epoch of a training"),
        ("3", "line 1: no epoch of a training"),
        (json.dumps({**record(1), "loss": "low"}), "line 1: no epoch of a training"),
    ],
)
def test_what_is_no_log_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        training_curves(tmp_path, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no log .*log\.jsonl; a training with a workdir"):
        training_curves(tmp_path, tmp_path / "curves.png")

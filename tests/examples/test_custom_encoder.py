"""The example on a table of one's own."""

import json
import sys
from pathlib import Path

import custom_encoder
import pytest
from drawing import drawn

import fusecomp as fc

pytestmark = pytest.mark.heavy  # trains small encoders


@pytest.fixture
def table(tmp_path: Path) -> Path:
    lines = ["reference,text,target,split"]
    (tmp_path / "images").mkdir()
    for number in range(8):
        drawn("RGB", 20 + number, 12).save(tmp_path / f"images/{number}.png")
        split = "val" if number % 4 == 3 else "train"
        lines.append(f"{number},is {number},{(number + 1) % 8},{split}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    return tmp_path / "mine.csv"


def arguments(table: Path, workdir: Path) -> list[str]:
    options = ["--table", table, "--images", table.parent / "images", "--epochs", 1]
    return ["custom_encoder.py", *map(str, options), "--workdir", str(workdir)]


def test_the_workdir_gets_report_evaluation_and_model_and_resumes(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = table.parent / "run"
    monkeypatch.setattr(sys, "argv", arguments(table, workdir))
    custom_encoder.main()
    said = capsys.readouterr().out
    metrics = json.loads((workdir / "metrics.json").read_text())["metrics"]
    assert dict(fc.Evaluation.load(workdir)) == metrics["tuned, Combiner"]
    assert (workdir / "model/README.md").is_file()
    before = (workdir / "tuned/stage1/last.pt").stat().st_mtime_ns
    custom_encoder.main()
    assert (workdir / "tuned/stage1/last.pt").stat().st_mtime_ns == before
    assert capsys.readouterr().out == said


def test_sheets_of_the_report_do_not_join_the_gallery(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", arguments(table, table.parent / "images/run"))
    with pytest.raises(SystemExit):
        custom_encoder.main()
    assert "--workdir lies in --images" in capsys.readouterr().err

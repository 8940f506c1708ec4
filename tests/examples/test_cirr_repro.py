"""The example on features of a tiny dataset; CI runs it on MiniCIRR."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cirr_repro
import pytest

import fusecomp as fc

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(run_example: Run) -> Run:
    return partial(run_example, cirr_repro)


@pytest.fixture
def features(tiny_cirr: Path, feature_file: Callable[..., Path]) -> Callable[..., Path]:
    """The file of the features of some splits."""
    return lambda *splits: feature_file(*(fc.datasets.CIRR(tiny_cirr, split) for split in splits))


def test_own_features_on_the_published_layout(
    run: Run,
    features: Callable[..., Path],
    tiny_cirr: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tiny_cirr / "dev" / "dev-0-0-img0.png").unlink()
    file = features("train", "val", "test1")
    arguments = ["--data-root", tiny_cirr, "--features", file, "--submit"]
    results = run(*arguments)
    printed = capsys.readouterr().out
    assert "1 of 60 images of val are missing, the first: dev-0-0-img0" in printed
    assert " Rs@1 | " in printed
    assert list(results["metrics"]) == ["image only", "text only", "plain, Sum", "plain, Combiner"]
    assert results["protocol"]["reference"] == "excluded"
    out = tmp_path / "out"
    for name in ("report.md", "triplets.png", "results.png", "model/weights.safetensors"):
        assert (out / name).stat().st_size > 0
    for name in ("recall", "recall_subset"):
        content = json.loads((out / "submission" / f"{name}.json").read_text())
        assert len(content) == 2 + 20
    assert run(*arguments) == results  # resumes what is finished


def test_features_without_test1_cannot_be_submitted(
    run: Run, features: Callable[..., Path], tiny_cirr: Path
) -> None:
    file = features("train", "val")
    with pytest.raises(ValueError, match="test1-0-0-img0"):
        run("--data-root", tiny_cirr, "--features", file, "--submit")


def test_a_wrong_folder_is_explained(run: Run, features: Callable[..., Path]) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run("--data-root", "nowhere", "--features", features("val"))


def test_fashioniqs_options_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--categories", "dress")
    assert "unrecognized arguments: --categories dress" in capsys.readouterr().err

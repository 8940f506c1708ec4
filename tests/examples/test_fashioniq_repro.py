"""The example on features of a tiny dataset; CI runs it on MiniFashion."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line
import fashioniq_repro
import pytest

import fusecomp as fc


def test_own_features_on_the_published_layout(
    run_example: Callable[..., dict[str, Any]],
    tiny_fashioniq: Path,
    feature_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    features = feature_file(*(fc.datasets.FashionIQ(tiny_fashioniq, s) for s in ("train", "val")))
    (tiny_fashioniq / "images" / "Dval00.png").unlink()
    arguments = ["--data-root", tiny_fashioniq, "--features", features]
    arguments += ["--categories", "dress", "shirt"]
    results = run_example(fashioniq_repro, *arguments)
    assert "1 of 24 images of val are missing, the first: Dval00" in capsys.readouterr().out
    assert list(results["metrics"]) == ["image only", "text only", "plain, Sum", "plain, Combiner"]
    assert "toptee/recall@10" not in results["metrics"]["plain, Sum"]
    assert results["protocol"]["gallery"] == "original"
    for name in (
        "report.md",
        "triplets.png",
        "results-dress.png",
        "results-shirt.png",
        "model/weights.safetensors",
        "model/README.md",
    ):
        assert (tmp_path / "out" / name).stat().st_size > 0
    assert run_example(fashioniq_repro, *arguments) == results  # resumes what is finished


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "f"], "--data-root goes with one of --features, --backbone and"),
        (["--data-root", "nowhere"], "--data-root goes with one of --features, --backbone and"),
        (
            ["--data-root", "nowhere", "--features", "f", "--clip-checkpoint", "c"],
            "--features and --clip-checkpoint exclude each other",
        ),
        (
            ["--data-root", "nowhere", "--backbone", "RN50"],
            "--backbone and --weights belong together",
        ),
        (["--skip-missing"], "--skip-missing goes with --backbone or --clip-checkpoint"),
        (
            ["--data-root", "nowhere", "--features", "f", "--skip-missing"],
            "--skip-missing goes with --backbone or --clip-checkpoint",
        ),
        (["--combiner-checkpoint", "c"], "--combiner-checkpoint needs --data-root"),
        (["--data-root", "nowhere", "--features", "f"], "no file nowhere"),
        (["--categories", "shoes"], "invalid choice: 'shoes'"),
    ],
)
def test_wrong_arguments_are_explained(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["fashioniq_repro.py", *arguments, "--workdir", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    with pytest.raises(SystemExit) as stopped:
        command_line.command(fashioniq_repro.main)
    # A code of 2 comes with a message of argparse, a text is printed by the interpreter.
    said = capsys.readouterr().err if stopped.value.code == 2 else str(stopped.value.code)
    assert message in said


def test_help_explains_every_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fashioniq_repro.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        fashioniq_repro.main()
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    for option in (
        "--data-root",
        "--features",
        "--backbone",
        "--clip-checkpoint",
        "--preset",
        "--gallery",
        "--skip-missing",
        "--micro-batch-size",
        "--precision",
        "--rehearse",
        "--workdir",
        "--seed",
    ):
        assert option in printed

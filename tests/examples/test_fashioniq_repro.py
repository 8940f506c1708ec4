"""The example on features of a tiny dataset; CI runs it on MiniFashion."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import command_line
import fashioniq_repro
import pytest

import fusecomp as fc

SCRIPT = Path(__file__).parents[2] / "examples" / "fashioniq_repro.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False
    )


def test_own_features_on_the_published_layout(
    tiny_fashioniq: Path, feature_file: Callable[..., Path], tmp_path: Path
) -> None:
    features = feature_file(*(fc.datasets.FashionIQ(tiny_fashioniq, s) for s in ("train", "val")))
    (tiny_fashioniq / "images" / "Dval00.png").unlink()
    settings = ["--epochs", "1", "2", "--batch-size", "8", "8", "--categories", "dress", "shirt"]
    out = tmp_path / "out"
    paths = ["--data-root", tiny_fashioniq, "--features", features, "--workdir", out]
    arguments = [str(argument) for argument in (*paths, *settings)]
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    assert "1 of 24 images of val are missing, the first: Dval00" in first.stdout
    results = json.loads((out / "metrics.json").read_text())
    assert list(results["metrics"]) == ["image only", "text only", "plain, Sum", "plain, Combiner"]
    assert "toptee/recall@10" not in results["metrics"]["plain, Sum"]
    assert results["protocol"]["gallery"] == "original"
    for name in (
        "report.md",
        "triplets.png",
        "results-dress.png",
        "results-shirt.png",
        "model/weights.safetensors",
    ):
        assert (out / name).stat().st_size > 0
    again = run(*arguments)  # resumes what is finished
    assert again.returncode == 0, again.stderr
    assert json.loads((out / "metrics.json").read_text()) == results


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
    argv = [SCRIPT, *arguments, "--workdir", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    with pytest.raises(SystemExit) as stopped:
        command_line.command(fashioniq_repro.main)
    # A code of 2 comes with a message of argparse, a text is printed by the interpreter.
    said = capsys.readouterr().err if stopped.value.code == 2 else str(stopped.value.code)
    assert message in said


def test_help_explains_every_option() -> None:
    result = run("--help")
    assert result.returncode == 0
    for option in (
        "--data-root",
        "--features",
        "--backbone",
        "--clip-checkpoint",
        "--preset",
        "--gallery",
        "--skip-missing",
        "--precision",
        "--workdir",
        "--seed",
    ):
        assert option in result.stdout

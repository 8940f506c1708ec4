"""The examples on two processes: the first draws, prints and writes, all train and evaluate."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# Each process imports torch and trains.
pytestmark = pytest.mark.heavy
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def run(start: Iterable[str], workdir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    script = EXAMPLES / "fashioniq_repro.py"
    return subprocess.run(
        [sys.executable, *start, script, "--quick", "--device", "cpu", "--workdir", workdir, *more],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def losses(workdir: Path) -> list[float]:
    """Of the epochs of stage 1, where no dropout acts."""
    log = workdir / "seed-0-quick" / "tuned" / "stage1" / "log.jsonl"
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()]


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    both = run(TORCHRUN, tmp_path)
    assert both.returncode == 0, both.stderr
    for line in ("drawing MiniFashion", "pretraining the", "epoch 2/2", "| tuned, Combiner |"):
        assert both.stdout.count(line) == 1, both.stdout
    for name in (
        "report.md",
        "triplets.png",
        "results-dress.png",
        "evaluation.npz",
        "model/weights.safetensors",
    ):
        assert (tmp_path / name).stat().st_size > 0
    two, two_losses = json.loads((tmp_path / "metrics.json").read_text()), losses(tmp_path)
    # One process on the same images and the same pretrained encoders.
    shutil.rmtree(tmp_path / "seed-0-quick")
    alone = run([], tmp_path)
    assert alone.returncode == 0, alone.stderr
    one = json.loads((tmp_path / "metrics.json").read_text())
    assert two_losses == pytest.approx(losses(tmp_path), rel=1e-3)
    assert {row: set(values) for row, values in two["metrics"].items()} == {
        row: set(values) for row, values in one["metrics"].items()
    }
    for row in ("image only", "text only", "plain, Sum"):
        assert two["metrics"][row] == one["metrics"][row]


def test_what_stops_the_first_stops_all_and_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "minifashion-0-quick").mkdir()
    (tmp_path / "minifashion-0-quick" / "mine.txt").touch()
    both = run(TORCHRUN, tmp_path)
    assert both.returncode != 0
    assert both.stderr.count("error: ") == 1, both.stderr
    assert "minifashion-0-quick exists, but does not hold the dataset" in both.stderr


def test_the_others_are_silent(tmp_path: Path) -> None:
    both = run(TORCHRUN, tmp_path, "--help")
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("usage: ") == 1, both.stdout

"""The command fusecomp: exit status, what goes where, and Ctrl-C."""

import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import random_evaluation
from PIL import Image

import fusecomp
from fusecomp import cli
from fusecomp.caching import CachedEncoder
from fusecomp.datasets import CIRR, FashionIQ, TripletTable, VerifyReport
from fusecomp.evaluation import Evaluation, compare

ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def table(tmp_path: Path) -> list[str]:
    """The arguments that check a table of two sound images."""
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    path = tmp_path / "mine.csv"
    path.write_text("reference,text,target,split\na,is blue,b,val\n")
    return ["verify", "table", str(path), "--images", str(tmp_path)]


def test_a_sound_dataset_is_status_0(table: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(table) == 0
    output = capsys.readouterr()
    assert output.out.startswith("table mine.csv in ")
    assert output.out.endswith("\nno fault\n")
    assert output.err == ""


def test_a_fault_is_status_1(
    table: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert cli.main(table) == 1
    assert "FAULT  empty: 1 of 2 images are files of 0 bytes" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["fashioniq", "cirr"])
def test_the_datasets_have_their_commands(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", name, str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    title = {"fashioniq": "FashionIQ", "cirr": "CIRR"}[name]
    assert output.err.startswith(f"fusecomp: no {title} in {tmp_path}")


def test_json_stands_alone_on_standard_output(
    table: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert cli.main([*table, "--json"]) == 1
    output = capsys.readouterr()
    content = json.loads(output.out)
    assert (content["ok"], content["findings"][0]["names"]) == (False, ["a.png"])
    assert output.err == ""


def test_the_options_reach_verify(table: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def verify(root: str, *more: str, **options: Any) -> VerifyReport:
        seen.update(options, arguments=(root, *more))
        return VerifyReport("mine", Path(root), (), (), 0, False, 0.0)

    for reader in (CIRR, FashionIQ, TripletTable):
        monkeypatch.setattr(reader, "verify", verify)
    assert cli.main([*table, "--split", "val", "--decode", "--num-workers", "3"]) == 0
    assert seen == {
        "arguments": (table[2], table[4], "val"),
        "decode": True,
        "num_workers": 3,
    }
    assert cli.main(["verify", "fashioniq", "there"]) == 0
    assert seen == {"arguments": ("there",), "decode": False, "num_workers": None}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["check"],
        ["verify"],
        ["verify", "coco", "there"],
        ["verify", "fashioniq"],
        ["verify", "table", "mine.csv"],
        ["verify", "cirr", "there", "--images", "images"],
        ["verify", "cirr", "there", "--num-workers", "many"],
        ["verify", "features"],
        ["verify", "features", "f.safetensors", "--decode"],
        ["compare", "one"],
        ["compare", "one", "two", "three"],
        ["compare", "one", "two", "--seed", "x"],
    ],
)
def test_a_wrong_command_is_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    assert error.value.code == 2
    assert "usage: fusecomp" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["--split", "train"], "unknown split 'train'; .* has 'val'"),
        (["--num-workers", "0"], "num_workers must be a whole number of at least 1, got 0"),
    ],
)
def test_what_cannot_be_checked_is_status_2(
    table: list[str], more: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*table, *more]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert re.match(f"fusecomp: .*{error}", output.err)


@pytest.mark.parametrize("command", ["", "verify", "compare"])
def test_help_has_its_own_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main([*command.split(), "--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    examples = text.partition("examples:\n")[2]
    assert ("fusecomp verify fashioniq fashionIQ_dataset" in examples) == (command != "compare")
    assert ("fusecomp compare runs/sum runs/combiner" in examples) == (command != "verify")
    assert ("Exit status: 0" in text) == (command != "")


def test_the_examples_of_the_help_are_commands() -> None:
    examples = f"{cli._VERIFY_EXAMPLES}\n{cli._COMPARE_EXAMPLES}"
    commands = [line.split(" > ")[0].split() for line in examples.splitlines()]
    for words in commands:
        options = cli._parser().parse_args(words[1:])
        assert callable(options.run)
    assert {words[0] for words in commands} == {"fusecomp"}
    assert {words[1] for words in commands} == {"verify", "compare"}


def test_a_feature_file_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.safetensors"
    assert cli.main(["verify", "features", str(path)]) == 2
    assert capsys.readouterr().err == f"fusecomp: no feature file {path}\n"
    cached = CachedEncoder.from_arrays(["a", "b"], np.eye(2), ["x"], np.full((1, 2), 3.0))
    cached.save(path)
    assert cli.main(["verify", "features", str(path)]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(
        f"{path}: 2 images of width 2, 1 texts of width 2, 0 skipped; all as it was"
    )
    content = path.read_bytes()
    path.write_bytes(content.replace(np.full(2, 3.0).tobytes(), np.zeros(2).tobytes()))
    assert torch.equal(CachedEncoder.load(path).encode_text(["x"]), torch.zeros(1, 2).double())
    assert cli.main(["verify", "features", str(path)]) == 1
    output = capsys.readouterr()
    assert output.out.startswith(f"{path} is torn or no feature file (its text_features are not")
    assert output.err == ""


@pytest.fixture
def runs(tiny_fashioniq: Path, tmp_path: Path) -> list[str]:
    """Two runs of the same queries."""
    folders = [str(tmp_path / name) for name in ("one", "other")]
    data = FashionIQ(tiny_fashioniq, "val")
    for seed, folder in enumerate(folders):
        random_evaluation(data, seed).save(Path(folder) / "evaluation.npz")
    return folders


def test_two_runs_are_compared(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (Evaluation.load(run) for run in runs)
    expected = compare(one, other, names=(runs[0], runs[1]))
    assert cli.main(["compare", *runs]) == 0
    output = capsys.readouterr()
    assert output.out == f"{expected}\n"
    assert output.err == ""
    assert cli.main(["compare", *runs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(expected.to_dict()))
    assert cli.main(["compare", runs[0], f"{runs[1]}/evaluation.npz", "--seed", "5"]) == 0
    assert "seed 5" in capsys.readouterr().out


def test_another_protocol_is_a_warning(
    runs: list[str], tiny_fashioniq: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    easier = FashionIQ(tiny_fashioniq, "val", gallery="val")
    random_evaluation(easier).save(Path(runs[1]) / "evaluation.npz")
    assert cli.main(["compare", *runs, "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["warnings"] == ["gallery original / val"]
    assert output.err == (
        f"fusecomp: warning: {runs[0]!r} and {runs[1]!r} do not compare: gallery original / val\n"
    )


def test_runs_that_cannot_be_compared_are_status_2(
    runs: list[str], tiny_cirr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torn.npz").write_bytes(b"PK")
    random_evaluation(CIRR(tiny_cirr, "val")).save(tmp_path / "cirr.npz")
    for other, message in (
        ("torn.npz", "torn.npz is torn or no evaluation"),
        ("cirr.npz", "has the dataset FashionIQ and"),
        ("nowhere", "no evaluation .*nowhere; Evaluation.save writes one"),
        (".", r"no evaluation .*evaluation.npz; Evaluation.save writes one; there are .*cirr.npz"),
    ):
        assert cli.main(["compare", runs[0], str(tmp_path / other)]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert re.match(f"fusecomp: .*{message}", output.err)
        assert len(output.err.splitlines()) == 1


def test_names_that_the_terminal_cannot_show_are_escaped(
    table: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "größe.png").write_bytes(b"")
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert cli.main(table) == 1
    sys.stdout.flush()
    assert rb"gr\xf6\xdfe.png" in shown.getvalue()


@pytest.mark.parametrize("log", ["log.jsonl", "stage2/log.jsonl"])
def test_the_workdir_of_a_training_is_told_how_to_get_an_evaluation(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / log).parent.mkdir(exist_ok=True)
    (tmp_path / log).touch()
    assert cli.main(["compare", str(tmp_path), str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path} is the workdir of a training, which keeps weights" in error
    assert f".save('{tmp_path / 'evaluation.npz'}') writes" in error


@pytest.mark.parametrize("module", ["fusecomp", "fusecomp.cli"])
def test_python_m_is_the_command(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "fusecomp.cli")  # as in a new process
    monkeypatch.setattr(sys, "argv", ["fusecomp", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(module, run_name="__main__")
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"fusecomp {fusecomp.__version__}\n"


def test_ctrl_c_is_status_130(table: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> VerifyReport:
        raise KeyboardInterrupt

    monkeypatch.setattr(TripletTable, "verify", interrupted)
    assert cli.main(table) == 130


SLOWLY = """
import signal, sys, time
from fusecomp import cli
from fusecomp.datasets import _verify

def check(path, decode):
    time.sleep(0.05)
    return _verify._Checked("empty")

_verify._check = check
# A shell's background processes ignore Ctrl-C, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("started", flush=True)
sys.exit(cli.main())
"""


def test_ctrl_c_ends_a_running_check_without_a_traceback(table: list[str], tmp_path: Path) -> None:
    for number in range(1200):
        (tmp_path / f"{number}.png").write_bytes(b"")
    running = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, *table, "--num-workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "started\n"
    time.sleep(1)
    sent = time.monotonic()
    os.kill(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, "", "")
    assert time.monotonic() - sent < 30  # all would take 60


def test_the_package_declares_the_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"fusecomp": "fusecomp.cli:main"}

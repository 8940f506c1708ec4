"""The dress rehearsal on drawn data: what it measures, resumes, prints and refuses."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cirr_repro
import command_line
import fashioniq_repro
import pytest
import rehearsal
import tinyclip
import torch
from forecast import Machine, WholeRun
from pace import Clock, TimedEncoder

import fusecomp as fc

pytestmark = pytest.mark.heavy  # each trains small encoders

PHASES = ["pretraining", "images", "texts", "evaluation", "stage 1", "stage 2"]
Rehearse = Callable[..., tuple[dict[str, Any], str]]


class Killed(BaseException):
    """The end of a process."""


def dying(function: Callable[..., Any], after: int) -> Callable[..., Any]:
    """Return the function; the call after so many kills the process when it is done."""
    left = iter(range(after))

    def call(*arguments: Any) -> Any:
        result = function(*arguments)
        if next(left, None) is None:
            raise Killed
        return result

    return call


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run with a file of its own, and a finished rehearsal in it."""
    workdir = tmp_path_factory.mktemp("run")
    (workdir / "metrics.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        argv = ["fashioniq_repro.py", "--quick", "--rehearse", "3", "--workdir", str(workdir)]
        patch.setattr(sys, "argv", argv)
        fashioniq_repro.main()
    return workdir


@pytest.fixture
def workdir(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def rehearse(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Rehearse:
    """Rehearse in the workdir; gives the file and what is printed."""

    def run(*flags: str, example: ModuleType = fashioniq_repro) -> tuple[dict[str, Any], str]:
        flags = ("--quick", "--rehearse", "3", *flags, "--workdir", str(workdir))
        monkeypatch.setattr(sys, "argv", ["example.py", *flags])
        example.main()
        content = json.loads((workdir / "rehearsal" / "rehearsal.json").read_text())
        return content, capsys.readouterr().out

    return run


def forget(workdir: Path, phases: list[str]) -> None:
    path = workdir / "rehearsal" / "rehearsal.json"
    content = json.loads(path.read_text())
    for phase in phases:
        del content["measured"][phase]
    path.write_text(json.dumps(content))


def test_a_finished_rehearsal_only_prints(rehearse: Rehearse, workdir: Path) -> None:
    before = contents(workdir)
    content, printed = rehearse()
    assert list(content["measured"]) == PHASES
    for phase in PHASES:
        assert f"{phase}: rehearsed before" in printed
    for line in (
        "| pretraining | 2 epochs ",
        "| extraction  | 804 images ",
        "| stage 1     | 8 steps of 128 ",
        "| stage 1     | 2 validations x 180 texts ",
        "| stage 2     | 8 steps of 256 ",
        "| stage 2     | 4 first steps of 256 of an epoch ",
        "| stage 2     | 4 checkpoints ",
        "| stage 2     | 4 validations ",
        "| evaluation  | 6 rows of the table ",
        "| all  ",
        "\nmemory: ",
        "\ndisk for checkpoints: ",
        "\nstage 2 resuming: ",
        "\nnothing is in the way\n",
    ):
        assert line in printed
    assert "not measured" not in printed
    assert all(row["seconds"] > 0 and row["cpu_seconds"] > 0 for row in content["work"])
    after = contents(workdir)
    # The run's own files are as they were, and so is all that was measured.
    measured = [json.loads(c["rehearsal/rehearsal.json"])["measured"] for c in (before, after)]
    assert measured[0] == measured[1]
    assert before.keys() == after.keys()
    assert {name for name in after if after[name] != before[name]} <= {"rehearsal/rehearsal.json"}


def test_the_run_beside_it_has_no_file_of_it(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {"metrics.json", "rehearsal"}
    kept = {path.name for path in (finished / "rehearsal").iterdir()}
    assert kept == {"rehearsal.json", "minifashion-0-quick", "tinyclip-0-quick.pt"}


def test_killed_in_each_phase_it_goes_on(
    rehearse: Rehearse, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(workdir, PHASES[1:])
    places: list[tuple[str, Any, str, int]] = [
        ("images", TimedEncoder, "encode_image", 0),
        ("texts", TimedEncoder, "encode_text", 1),
        ("evaluation", fc, "evaluate", 1),
        ("stage 1", Clock, "on_checkpoint", 1),
        ("stage 2", Clock, "on_checkpoint", 1),
    ]
    for number, (phase, owner, name, after) in enumerate(places):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, dying(getattr(owner, name), after))
            with pytest.raises(Killed):
                rehearse()
        noted = json.loads((workdir / "rehearsal" / "rehearsal.json").read_text())["measured"]
        assert list(noted) == PHASES[: number + 1], phase
    steps: list[int] = []
    on_step = Clock.on_step

    def count(clock: Clock, trainer: fc.Trainer, loss: torch.Tensor) -> None:
        steps.append(trainer.steps)
        on_step(clock, trainer, loss)

    monkeypatch.setattr(Clock, "on_step", count)
    content, printed = rehearse()
    for phase in PHASES[:-1]:
        assert f"{phase}: rehearsed before" in printed
    assert "stage 2: a few steps" in printed
    # The first epoch of two steps was kept, of three.
    assert steps == [3, 4, 5, 6]
    assert len(content["measured"]["stage 2"]["stage 2 step"]) == 3
    assert "not measured" not in printed


@pytest.fixture
def whole(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[WholeRun, Path]]:
    """The run that was rehearsed, and its folder."""
    flags = ["example.py", "--quick", "--rehearse", "3", "--workdir", str(workdir)]
    monkeypatch.setattr(sys, "argv", flags)
    parser = command_line.make_parser(fashioniq_repro.__doc__, "FashionIQ")
    parser.set_defaults(categories=fashioniq_repro.CATEGORIES, gallery="original")
    args = command_line.parse(parser)
    root = args.workdir / "minifashion-0-quick"
    yield WholeRun(args, *read(root), fashioniq_repro.SMALL), root


def read(root: Path) -> tuple[fc.datasets.FashionIQ, fc.datasets.FashionIQ]:
    train = fc.datasets.FashionIQ(root, "train", gallery="val", name="MiniFashion")
    return train, fc.datasets.FashionIQ(root, "val", name="MiniFashion")


def test_what_the_machine_lacks_is_named_with_its_way_out(
    whole: tuple[WholeRun, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    content = rehearsal.run(*whole, Machine(memory=1e8, disk=1e6))
    printed = capsys.readouterr().out
    needs = content["needs"]
    # Three trainings: in each the last state and two best ones, while a new one is written.
    sizes = {n: content["measured"][n] for n in ("stage 1", "stage 2")}
    one, two = (sizes[name]["last"] + 2 * sizes[name]["best"] for name in sizes)
    assert needs["disk"] > one + 2 * two + max(sizes[name]["last"] for name in sizes)
    (memory, memory_out), (disk, disk_out) = content["problems"]
    assert memory.endswith(f"takes {needs['memory'] / 1e9:.3g} GB of memory, there are 0.1 GB")
    assert memory_out
    assert disk == f"the checkpoints take {needs['disk'] / 1e9:.3g} GB, 0.001 GB are free"
    missing = f"{(needs['disk'] - 1e6) / 1e9:.3g} GB"
    assert disk_out == f"free {missing}, or give --workdir on another disk"
    assert f"in the way: {disk}\n   way out: {disk_out}" in printed
    assert "nothing is in the way" not in printed


def test_missing_images_are_named_and_left_out(
    whole: tuple[WholeRun, Path], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, root = whole
    gone = run.val.triplets()[0].reference_id
    run.val.path(gone).unlink()
    forget(workdir, ["images"])
    # The folder is read anew.
    fresh = WholeRun(run.args, *read(root), run.small)
    content = rehearsal.run(fresh, root)
    assert list(content["missing_images"]) == [gone]
    (what, way_out) = content["problems"][0]
    assert what.startswith("1 images are missing, the first: ")
    assert what.endswith(f"{gone}.png")
    assert "--skip-missing leaves out" in way_out
    images = next(row["does"] for row in content["work"] if row["pace"] == "images")
    assert images == "804 images"
    # Left out, it is neither counted nor in the way.
    run.args.skip_missing = True
    content = rehearsal.run(fresh, root)
    assert content["problems"] == []
    images = next(row["does"] for row in content["work"] if row["pace"] == "images")
    assert images == "803 images"


def test_without_any_image_the_way_out_is_told(whole: tuple[WholeRun, Path]) -> None:
    run, root = whole
    for path in (root / "images").iterdir():
        path.unlink()
    fresh = WholeRun(run.args, *read(root), run.small)
    with pytest.raises(FileNotFoundError, match=r"no triplet of train has its .*stand_ins\.py"):
        rehearsal.run(fresh, root)


def test_stage_1_opens_images_where_their_encoder_learns(
    whole: tuple[WholeRun, Path], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, root = whole
    small = replace(run.small, stage1=replace(run.small.stage1, trainable="both"))
    forget(workdir, ["stage 1"])
    content = rehearsal.run(replace(run, small=small), root)
    printed = capsys.readouterr().out
    assert "stage 1: a few steps" in printed
    # The images are encoded anew behind stage 1, and in each of its validations.
    assert "| extraction  | 1,608 images in 2 passes " in printed
    assert "| stage 1     | 2 validations x 360 images " in printed
    assert content["problems"] == []


def test_a_broken_file_is_measured_anew(
    whole: tuple[WholeRun, Path], workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workdir / "rehearsal" / "rehearsal.json").write_text("{")
    monkeypatch.setattr(rehearsal.Phases, "named", lambda self: {})
    assert rehearsal.run(*whole)["measured"] == {}


@pytest.fixture
def no_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any weights will do."""
    monkeypatch.setattr(tinyclip, "pretrain", lambda *given, **settings: None)


@pytest.mark.usefixtures("no_pretraining")
def test_settings_that_do_not_fit_are_named_with_their_way_out(rehearse: Rehearse) -> None:
    content, printed = rehearse("--precision", "fp16", "--device", "cpu")
    assert [problem[0].partition(":")[0] for problem in content["problems"]] == [
        "stage 1",
        "stage 2",
    ]
    assert "in the way: stage 2: precision='fp16' needs a GPU" in printed
    assert "way out: --precision bf16, or fp32" in printed
    assert "| stage 2     | 8 steps of 256                   | not measured " in printed


@pytest.mark.usefixtures("no_pretraining")
def test_what_does_not_fit_into_memory_fits_by_the_way_out(
    rehearse: Rehearse, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = tinyclip.TinyTextEncoder.forward

    def small(self: tinyclip.TinyTextEncoder, texts: list[str]) -> Any:
        if torch.is_grad_enabled() and len(texts) > 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return forward(self, texts)

    monkeypatch.setattr(tinyclip.TinyTextEncoder, "forward", small)
    flags = "--batch-size", "128", "100", "--epochs", "3", "5"
    content, printed = rehearse(*flags)
    assert "has other settings: all phases are rehearsed anew" in printed
    assert "rehearsed before" not in printed
    assert [problem[0].partition(":")[0] for problem in content["problems"]] == ["stage 1"]
    assert "in the way: stage 1: out of memory: CUDA out of memory." in printed
    assert "way out: --micro-batch-size 64, which computes the same in parts" in printed
    content, printed = rehearse(*flags, "--micro-batch-size", "64")
    assert content["problems"] == []
    assert "nothing is in the way" in printed
    # Of 600 triplets; other epochs need no other measurement.
    assert "| stage 1     | 12 steps of 128 " in printed
    assert "| stage 2     | 50 steps of 100 " in printed
    content, printed = rehearse(*flags[:4], "3", "10", "--micro-batch-size", "64")
    assert printed.count("rehearsed before") == len(PHASES)
    assert "| stage 2     | 100 steps of 100 " in printed


def test_an_error_that_is_no_misfit_is_not_hidden(
    rehearse: Rehearse, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(workdir, ["evaluation"])

    def fail(*given: Any) -> None:
        raise RuntimeError("a broken kernel")

    monkeypatch.setattr(fc, "evaluate", fail)
    with pytest.raises(RuntimeError, match="a broken kernel"):
        rehearse()


@pytest.mark.parametrize("steps", ["1", "0"])
def test_too_few_steps_are_refused(
    rehearse: Rehearse, steps: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        rehearse("--rehearse", steps)
    assert f"--rehearse {steps}: a pace needs at least 2 steps" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pretraining")
def test_cirr_counts_the_images_of_its_server_files(rehearse: Rehearse) -> None:
    content, printed = rehearse("--submit", "--seed", "1", example=cirr_repro)
    assert content["problems"] == []
    images = [row["does"] for row in content["work"] if row["pace"] == "images"]
    # 240 of train and 120 of val, then 60 of test1.
    assert images == ["420 images in 2 passes"]
    assert "| stage 2     | 4 checkpoints " in printed

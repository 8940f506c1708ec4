"""The full reproduction on the tiny published CLIPs, real annotations and generated images."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import experiment
import fashioniq_repro
import pytest
import torch

import fusecomp as fc

Shared = Callable[[str], Path]
SPLITS, ROWS = ("train", "val"), 24


@pytest.fixture
def data_root(shared: Shared, draw_images: Any, tmp_path: Path) -> Path:
    """A few rows of the real annotations, with an image for each name that they use."""
    source, root = shared("datasets/fashioniq"), tmp_path / "fashionIQ_dataset"
    for folder in ("captions", "image_splits"):
        (root / folder).mkdir(parents=True)
    for split in SPLITS:
        rows = json.loads((source / f"captions/cap.dress.{split}.json").read_text())[:ROWS]
        ids = sorted({row[side] for row in rows for side in ("candidate", "target")})
        (root / f"captions/cap.dress.{split}.json").write_text(json.dumps(rows))
        (root / f"image_splits/split.dress.{split}.json").write_text(json.dumps(ids))
        draw_images(root / "images" / f"{image_id}.png" for image_id in ids)
    return root


@pytest.fixture
def run(open_clip: Any, run_example: Any, data_root: Path) -> Callable[..., dict[str, Any]]:
    return partial(run_example, fashioniq_repro, "--data-root", data_root, "--categories", "dress")


@pytest.mark.heavy
@pytest.mark.parametrize(("kind", "preset"), [("resnet", "2022"), ("vit", "2023")])
def test_all_stages_on_a_backbone(
    run: Any, backbone: Any, shared: Shared, data_root: Path, kind: str, preset: str
) -> None:
    results = run(*backbone(kind), "--preset", preset)
    rows = results["metrics"]
    assert list(rows)[2:] == ["plain, Sum", "plain, Combiner", "tuned, Sum", "tuned, Combiner"]
    # The table is of this CLIP, in the published preprocessing.
    val = fc.datasets.FashionIQ(data_root, "val", categories=["dress"])
    clip = fc.encoders.OpenClipEncoder.from_clip4cir(shared(f"parity/clip_{kind}_checkpoint.pt"))
    expected = fc.evaluate(fc.ComposedEncoder(clip, fc.Sum()), val)
    assert rows["plain, Sum"] == dict(expected)


def test_published_checkpoints_are_scored(
    run: Any, shared: Shared, data_root: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    combiner = fc.Combiner(32, projection_dim=24, hidden_dim=40)
    torch.save({"epoch": 0, "Combiner": combiner.state_dict()}, tmp_path / "combiner.pt")
    clip = shared("parity/clip_vit_checkpoint.pt")
    results = run("--clip-checkpoint", clip, "--combiner-checkpoint", tmp_path / "combiner.pt")
    assert list(results["metrics"]) == ["Sum", "Combiner"]
    val = fc.datasets.FashionIQ(data_root, "val", categories=["dress"])
    model = fc.ComposedEncoder(fc.encoders.OpenClipEncoder.from_clip4cir(clip), combiner)
    assert results["metrics"]["Combiner"] == dict(fc.evaluate(model, val))


def test_missing_and_broken_images_are_left_out_if_told_to(
    run: Any, shared: Shared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = ["--clip-checkpoint", shared("parity/clip_vit_checkpoint.pt")]
    root = tmp_path / "fashionIQ_dataset"
    train, val = (fc.datasets.FashionIQ(root, split, categories=["dress"]) for split in SPLITS)
    missing, broken = val.image_ids[0], train.image_ids[0]
    val.path(missing).unlink()
    content = train.path(broken).read_bytes()
    train.path(broken).write_bytes(content[:100] + bytes(100) + content[200:])
    with pytest.raises(FileNotFoundError, match=r"1 of \d+ images are missing"):
        run(*clip)
    capsys.readouterr()
    results = run(*clip, "--skip-missing")
    said = capsys.readouterr().out
    for data, gone in ((train, broken), (val, missing)):
        kept = len(fc.datasets.drop_images(data, [gone]))
        assert (
            f"1 of {len(data.image_ids)} images of {data.split} are missing or broken, "
            f"{len(data) - kept} of {len(data)} triplets are left out, the first: {gone}\n"
        ) in said
    protocol = getattr(fc.datasets.drop_images(val, [missing]), "protocol", {})
    assert results["protocol"] == protocol
    assert f"missing {protocol['missing']}" in said
    assert protocol["missing"] in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")  # the archive's format
def test_openai_weights_without_quickgelu_are_refused(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "RN50.pt"
    torch.jit.script(torch.nn.Linear(1, 1)).save(path)
    with pytest.raises(ValueError, match="need QuickGELU: --backbone RN50-quickgelu"):
        run("--backbone", "RN50", "--weights", path)


def test_weights_of_another_backbone_are_named(run: Any, shared: Shared) -> None:
    weights = shared("parity/clip_vit_checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt does not fit RN50-quickgelu"):
        run("--backbone", "RN50-quickgelu", "--weights", weights)


def test_an_unknown_backbone_and_weights_that_are_none_are_named(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with pytest.raises(ValueError, match=r"--backbone RN5: .*not found"):
        run("--backbone", "RN5", "--weights", path)
    for content in (b"", b"no weights", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.pt is no file of weights"):
            run("--backbone", "RN50", "--weights", path)


@pytest.mark.parametrize("content", [{}, {"CLIP": {}}, {"Combiner": 3}, {"Combiner": {}}, [1]])
def test_a_file_that_holds_no_combiner_is_named(tmp_path: Path, content: object) -> None:
    path = tmp_path / "combiner.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"^{path} is no published Combiner: "):
        experiment.read_combiner(path)


def test_code_in_a_file_of_a_combiner_is_refused_not_run(tmp_path: Path) -> None:
    path, victim = tmp_path / "combiner.pt", tmp_path / "victim"
    torch.save({"epoch": Hostile(victim), "Combiner": {}}, path)
    with pytest.raises(ValueError, match=f"^{path} is no published Combiner: "):
        experiment.read_combiner(path)
    assert not victim.exists()


class Hostile:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)

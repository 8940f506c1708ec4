"""Fixtures of the examples' tests: runs of an example, features, backbones, images."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from demo_site import Site, make_answers, running
from PIL import Image

from fusecomp import CachedEncoder
from fusecomp.types import Dataset

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
VISION: dict[str, dict[str, Any]] = {
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 4, "patch_size": None},
    "vit": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
}


@pytest.fixture
def run_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run an example in this process, with a few small epochs; gives its metrics file."""

    def run(example: ModuleType, *arguments: str | Path) -> dict[str, Any]:
        out = tmp_path / "out"
        settings = ["--epochs", "1", "2", "--batch-size", "8", "12", "--lr", "1e-4", "1e-4"]
        argv = [f"{example.__name__}.py", *settings, *arguments, "--workdir", out]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in argv])
        example.main()
        results: dict[str, Any] = json.loads((out / "metrics.json").read_text())
        return results

    return run


@pytest.fixture
def feature_file(tmp_path: Path) -> Callable[..., Path]:
    """A file of random features of some datasets."""

    def write(*datasets: Dataset) -> Path:
        rng = np.random.default_rng(0)
        ids = [image_id for data in datasets for image_id in data.image_ids]
        texts = list(dict.fromkeys(text for data in datasets for text in data.texts()))
        images, sentences = (rng.standard_normal((len(n), 16), "float32") for n in (ids, texts))
        path = tmp_path / "features.safetensors"
        CachedEncoder.from_arrays(ids, images, texts, sentences).save(path)
        return path

    return write


@pytest.fixture
def backbone(
    open_clip: Any, shared: Callable[[str], Path], tmp_path: Path
) -> Callable[[str], list[str]]:
    """The flags of a tiny published CLIP as a backbone that open_clip knows by name."""

    def add(kind: str) -> list[str]:
        name = f"tiny-{kind}-quickgelu"
        config = {"embed_dim": 32, "quick_gelu": True, "vision_cfg": VISION[kind], "text_cfg": TEXT}
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(tmp_path / "models")
        weights = shared(f"parity/clip_{kind}_checkpoint.pt")
        return ["--backbone", name, "--weights", str(weights)]

    return add


@pytest.fixture
def draw_images() -> Callable[[Iterable[Path]], None]:
    """Images of odd sizes where the paths say."""

    def draw(paths: Iterable[Path]) -> None:
        rng = np.random.default_rng(0)
        for path in paths:
            size = (int(rng.integers(40, 90)), int(rng.integers(60, 120)), 3)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)

    return draw


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page's server, ready to answer."""
    for package in ("starlette", "uvicorn"):
        pytest.importorskip(package, reason="needs the extra demo")
    from demo.app import State

    answers = make_answers(tmp_path_factory.mktemp("demo") / "data")
    with running(State(answers)) as served:
        yield served

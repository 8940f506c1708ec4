"""Fixtures that many tests share."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Paths into the folder of published annotations and numbers that lies beside a checkout."""

    def find(name: str) -> Path:
        path = _SHARED / name
        if not path.exists():
            pytest.skip(f"needs {name} of the shared folder beside the checkout")
        return path

    return find


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

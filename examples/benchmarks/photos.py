"""What the benchmarks of encoders share: a CLIP of the paper's size, and images to give it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import fusecomp as fc
from fusecomp.types import Task

BACKBONE = "RN50x4-quickgelu"
CHANGES = (
    "longer",
    "more colorful",
    "dark blue with thin straps",
    "less revealing",
    "a shiny red one",
    "lighter and has a floral print",
    "not as plain",
    "with short sleeves and a round neckline",
)


def make_clip() -> fc.encoders.OpenClipEncoder:
    """The paper's CLIP with random weights and the published preprocessing."""
    import open_clip

    model: Any = open_clip.create_model(BACKBONE, pretrained=None)
    preprocess = fc.images.clip_transform(model.visual.image_size, fc.images.TargetPad(1.25))
    return fc.encoders.OpenClipEncoder(model, open_clip.get_tokenizer(BACKBONE), preprocess)


def draw(folder: Path, count: int) -> list[Path]:
    """Write JPEG images of 400 to 600 pixels a side, with the detail and the size of photos."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        width, height = rng.integers(400, 601, size=2).tolist()
        pixels = np.zeros((height, width, 3), np.float32)
        for cells, weight in ((4, 90), (16, 50), (64, 25), (200, 8)):
            small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
            smooth = small.resize((width, height), Image.Resampling.BICUBIC)
            pixels += weight * (np.asarray(smooth, np.float32) / 127.5 - 1)
        image = Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))
        files.append(folder / f"{number:04d}.jpg")
        image.save(files[-1], quality=90)
    return files


class Photos:
    """Triplets of these files, in the order given; the texts serve in turn."""

    def __init__(self, files: Sequence[Path], texts: Sequence[str] = ()) -> None:
        self.image_ids = [f"{number}" for number in range(len(files))]
        self._files = files
        self._texts = texts or [f"Is {a} and is {b}" for a in CHANGES for b in CHANGES if a != b]

    def path(self, image_id: str) -> Path:
        """The file."""
        return self._files[int(image_id)]

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[fc.Triplet]:
        """Each image is once a reference and once a target."""
        ids = self.image_ids
        return [
            fc.Triplet(f"{n}", ids[n - 1], (self._texts[n % len(self._texts)],), image_id)
            for n, image_id in enumerate(ids)
        ]

    def texts(self) -> list[str]:
        """Those that occur."""
        return list(dict.fromkeys(triplet.texts[0] for triplet in self.triplets()))

    def tasks(self) -> list[Task]:
        """Nothing is evaluated."""
        return []

    def __len__(self) -> int:
        return len(self.image_ids)

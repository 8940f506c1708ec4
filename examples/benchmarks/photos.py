"""Shared by the benchmarks of encoders: a CLIP of the paper's size, and images to give it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import fusecomp as fc

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


def make_dataset(files: Sequence[Path], texts: Sequence[str] = ()) -> fc.datasets.Triplets:
    """Each file is once a reference and once a target, in this order; the texts serve in turn."""
    texts = texts or [f"Is {a} and is {b}" for a in CHANGES for b in CHANGES if a != b]
    paths = {f"{number}": path for number, path in enumerate(files)}
    ids = list(paths)
    triplets = [
        fc.Triplet(image_id, ids[row - 1], (texts[row % len(texts)],), image_id)
        for row, image_id in enumerate(ids)
    ]
    return fc.datasets.Triplets(triplets, paths, gallery=ids)

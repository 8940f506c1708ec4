"""MiniFashion, a small drawn dataset: images of garments, and captions that compare two of them.

It has FashionIQ's folder layout, so that code for FashionIQ runs on it in seconds:

    ROOT/images/<ID>.png                              64 x 64 pixels
    ROOT/captions/cap.<category>.<split>.json         [{"target", "candidate", "captions"}, ...]
    ROOT/image_splits/split.<category>.<split>.json   [ID, ...]
    ROOT/descriptions.json                            {ID: sentence}, train images only

minifashion_wardrobe.py makes the garments, minifashion_images.py draws them, and
minifashion_captions.py writes the captions. They imitate FashionIQ's: two annotators for each pair
name some of the changes, in absolute or relative words, with typing errors. The descriptions, which
FashionIQ does not have, replace the web captions that CLIP was trained on.

    cd examples && python -m drawn.minifashion DIR [--seed N]
"""

import string
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from drawn.common import command_line, write_json, write_once
from drawn.minifashion_captions import describe, write_caption
from drawn.minifashion_images import draw_garment
from drawn.minifashion_wardrobe import Garment, draw_pairs, wardrobe

CATEGORIES = ("dress", "shirt", "toptee")
VERSION = 1  # part of the settings on disk: raise it when the same seed draws something else


def new_ids(rng: Generator, count: int, prefix: str) -> list[str]:
    """Draw distinct names such as "B004QX2M4A"."""
    letters = string.digits + string.ascii_uppercase
    ids: dict[str, None] = {}
    while len(ids) < count:
        ids[prefix + "".join(letters[i] for i in rng.integers(len(letters), size=6))] = None
    return list(ids)


def new_stock(
    seed: int, category: str, split: str, images: int
) -> tuple[dict[str, Garment], Generator]:
    """Draw the garments of one category by id; return also the generator for what follows."""
    number = 2 * CATEGORIES.index(category) + (split == "val")
    rng = np.random.default_rng([seed, number])
    stock = wardrobe(rng, category, images)
    ids = new_ids(rng, images, f"B00{number}")  # the digit keeps the names of splits apart
    return dict(zip(ids, stock, strict=True)), rng


def render_split(
    root: Path, seed: int, category: str, split: str, images: int, pairs: int
) -> dict[str, str]:
    """Write the images, captions and names of one category; return its descriptions."""
    garments, rng = new_stock(seed, category, split, images)
    ids, stock = [*garments], [*garments.values()]
    triplets = [
        {
            "target": ids[target],
            "candidate": ids[reference],
            "captions": [write_caption(rng, stock[reference], stock[target]) for _ in range(2)],
        }
        for reference, target in draw_pairs(rng, stock, pairs)
    ]
    write_json(root / "captions" / f"cap.{category}.{split}.json", triplets)
    write_json(root / "image_splits" / f"split.{category}.{split}.json", ids)
    drawings = (draw_garment(rng, garment) for garment in stock)
    files = (root / "images" / f"{image_id}.png" for image_id in ids)
    with ThreadPoolExecutor(1) as other:  # it saves while the next ones are drawn
        list(other.map(partial(Image.Image.save, compress_level=1), drawings, files))
    return dict(zip(ids, (describe(rng, garment, 0.65) for garment in stock), strict=True))


def render(
    root: str | Path,
    seed: int = 0,
    train_images: int = 1000,
    val_images: int = 400,
    train_triplets: int = 1400,
    val_queries: int = 280,
) -> Path:
    """Draw the dataset into a folder, unless it is there already.

    Args:
        root: the folder; absent, empty, or with this dataset in it.
        seed: the same seed gives the same images and captions.
        train_images: images of each category in train.
        val_images: images of each category in val, which are its gallery.
        train_triplets: training triplets of each category.
        val_queries: validation queries of each category.

    Returns:
        The folder.

    Raises:
        FileExistsError: if the folder holds something else.
        ValueError: if there are too few images for the number of triplets.
    """
    sizes = {"train": (train_images, train_triplets), "val": (val_images, val_queries)}
    settings = {"version": VERSION, "seed": seed} | {k: list(v) for k, v in sizes.items()}

    def write(folder: Path) -> None:
        (folder / "images").mkdir()
        descriptions: dict[str, str] = {}
        for category in CATEGORIES:
            descriptions |= render_split(folder, seed, category, "train", *sizes["train"])
            render_split(folder, seed, category, "val", *sizes["val"])
        write_json(folder / "descriptions.json", descriptions)

    return write_once(root, "minifashion.json", settings, write)


if __name__ == "__main__":
    command_line("Draw MiniFashion, a small fashion dataset.", render)

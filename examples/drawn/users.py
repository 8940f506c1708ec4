"""Simulated users of MiniFashion and MiniCIRR, who know what each image of val shows.

A user writes the text that separates the shown image from the target as the captions of the dataset
are written, and may judge the shown image: liked if it has more than half of what the target has,
else disliked.
"""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from drawn import minicirr, minifashion
from drawn.minicirr_captions import slip
from drawn.minicirr_captions import write_caption as compare_scenes
from drawn.minicirr_scenes import Scene
from drawn.minifashion_captions import describe, differences
from drawn.minifashion_captions import write_caption as compare_garments
from drawn.minifashion_wardrobe import Garment
from fusecomp.evaluation import Reply, User

# random numbers, shown, target -> text
Write = Callable[[Generator, Any, Any], str]


def fashion_user(root: Path, *, judges: bool) -> User:
    """Return a user of the validation split of a MiniFashion."""
    settings = json.loads((root / "minifashion.json").read_text(encoding="utf-8"))
    images, _ = settings["val"]
    shown: dict[str, Garment] = {}
    for category in minifashion.CATEGORIES:
        shown |= minifashion.new_stock(settings["seed"], category, "val", images)[0]

    def write(rng: Generator, old: Garment, new: Garment) -> str:
        if not differences(old, new):
            return f"is {describe(rng, new, 0.5)}"
        first, second = (compare_garments(rng, old, new).strip(".?, ") for _ in range(2))
        return f"{first.capitalize()} and {second}"  # as FashionIQ joins two captions

    def share(old: Garment, new: Garment) -> float:
        return sum(a == b for a, b in zip(old[1:], new[1:], strict=True)) / len(old[1:])

    return make_user(shown, write, share, judges)


def cirr_user(root: Path, *, judges: bool) -> User:
    """Return a user of the validation split of a MiniCIRR."""
    settings = json.loads((root / "minicirr.json").read_text(encoding="utf-8"))
    shown: dict[str, Scene] = {}
    for group in minicirr.draw_groups(settings["seed"], "val", settings["val"]):
        shown |= group.scenes

    def write(rng: Generator, old: Scene, new: Scene) -> str:
        return slip(rng, compare_scenes(rng, old, new))

    def share(old: Scene, new: Scene) -> float:
        looks = [Counter(toy[:4] for toy in scene.toys) for scene in (old, new)]
        same = (looks[0] & looks[1]).total() + (old.ground == new.ground)
        return same / (1 + max(len(old.toys), len(new.toys)))

    return make_user(shown, write, share, judges)


def make_user(
    content: dict[str, Any], write: Write, share: Callable[[Any, Any], float], judges: bool
) -> User:
    """Return a user who goes on from the best image; one pair of images always gets one text."""

    def user(shown: Sequence[str], target: str) -> Reply:
        best = shown[0]
        old, new = content[best], content[target]
        text = write(np.random.default_rng(zlib.crc32(f"{best} {target}".encode())), old, new)
        if not judges:
            return Reply(best, text)
        if share(old, new) > 0.5:
            return Reply(best, text, liked=[best])
        return Reply(best, text, disliked=[best])

    return user

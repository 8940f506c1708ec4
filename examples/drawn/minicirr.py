"""MiniCIRR, a small drawn dataset: groups of six scenes nearly alike, with captions of changes.

It has CIRR's folder layout (rc2), so that code for CIRR runs on it in seconds:

    ROOT/train/<N>/<NAME>.png, ROOT/dev/<NAME>.png, ROOT/test1/<NAME>.png       64 x 64 pixels
    ROOT/cirr/captions/cap.rc2.<split>.json        [{"pairid", "reference", "caption", ...}, ...]
    ROOT/cirr/image_splits/split.rc2.<split>.json  {NAME: path below ROOT}
    ROOT/descriptions.json                         {NAME: sentence}, train images only

minicirr_scenes.py makes the scenes, minicirr_images.py draws them, and minicirr_captions.py writes
the captions. As in CIRR, nine pairs of each group have a caption, and the targets of test1 are left
out. The descriptions, which CIRR does not have, replace the web captions that CLIP was trained on.

    cd examples && python -m drawn.minicirr DIR [--seed N]
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from PIL.Image import Image

from drawn.common import command_line, write_json, write_once
from drawn.minicirr_captions import slip, write_caption, write_description
from drawn.minicirr_images import draw_scene
from drawn.minicirr_scenes import GROUP, Scene, new_group

VERSION = 1  # part of the settings on disk: raise it when the same seed draws something else
FOLDERS = {"train": "train", "val": "dev", "test1": "test1"}
# Reference and target of a group's captions, by rank: a ring and three chords, as in CIRR.
PAIRS = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 2), (0, 3), (0, 4))
SHARD = 100  # images in each folder of train


def new_names(rng: Generator, split: str, count: int) -> list[str]:
    """Draw distinct image names such as "dev-1028-1-img0"."""
    numbers = rng.choice(40 * count, size=count, replace=False).tolist()
    return [f"{FOLDERS[split]}-{n // 8}-{n // 2 % 4}-img{n % 2}" for n in numbers]


def image_path(split: str, name: str, number: int) -> str:
    """Return the path of a split's image of this number, as in the split file."""
    shard = f"{number // SHARD}/" if split == "train" else ""
    return f"./{FOLDERS[split]}/{shard}{name}.png"


def ask(
    rng: Generator, split: str, group: int, names: list[str], captions: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield a group's entries of the caption file; `names` are in the order of the ranks."""
    members = rng.permutation(names).tolist()
    for number, ((reference, target), caption) in enumerate(zip(PAIRS, captions, strict=True)):
        entry = {"pairid": len(PAIRS) * group + number, "reference": names[reference]}
        known = split != "test1"
        if known:
            goal = names[target]
            entry |= {"target_hard": goal, "target_soft": {goal: 1.0}}
        ranks = {"reference_rank": reference} | ({"target_rank": target} if known else {})
        img_set = {"id": group, "members": members, **ranks}
        yield entry | {"caption": caption, "img_set": img_set}


class Group(NamedTuple):
    """Six images by name: their scenes, drawings and descriptions, and the captions' entries."""

    scenes: dict[str, Scene]
    entries: list[dict[str, Any]]
    drawings: list[Image]
    descriptions: list[str]


def draw_groups(seed: int, split: str, groups: int) -> Iterator[Group]:
    """Yield the groups of a split."""
    rng = np.random.default_rng([seed, list(FOLDERS).index(split)])
    names = new_names(rng, split, GROUP * groups)
    for group in range(groups):
        scenes, own = new_group(rng), names[GROUP * group : GROUP * (group + 1)]
        captions = [slip(rng, write_caption(rng, scenes[a], scenes[b])) for a, b in PAIRS]
        entries = [*ask(rng, split, group, own, captions)]
        drawings, descriptions = [], []
        for scene in scenes:
            drawings.append(draw_scene(rng, scene))
            descriptions.append(write_description(rng, scene))
        yield Group(dict(zip(own, scenes, strict=True)), entries, drawings, descriptions)


def render_split(root: Path, seed: int, split: str, groups: int) -> dict[str, str]:
    """Write the images, captions and names of one split; return its descriptions."""
    paths: dict[str, str] = {}
    entries: list[dict[str, Any]] = []
    descriptions: dict[str, str] = {}
    for group in draw_groups(seed, split, groups):
        entries += group.entries
        for name, drawing in zip(group.scenes, group.drawings, strict=True):
            paths[name] = image_path(split, name, len(paths))
            (root / paths[name]).parent.mkdir(parents=True, exist_ok=True)
            drawing.save(root / paths[name], compress_level=1)
        descriptions |= zip(group.scenes, group.descriptions, strict=True)
    write_json(root / "cirr" / "captions" / f"cap.rc2.{split}.json", entries)
    write_json(root / "cirr" / "image_splits" / f"split.rc2.{split}.json", paths)
    return descriptions


def render(
    root: str | Path,
    seed: int = 0,
    train_groups: int = 800,
    val_groups: int = 70,
    test_groups: int = 60,
) -> Path:
    """Draw the dataset into a folder, unless it is there already.

    Args:
        root: the folder; absent, empty, or with this dataset in it.
        seed: the same seed gives the same images and captions.
        train_groups: groups of six images and nine captions in train.
        val_groups: groups in val; all their images are its gallery.
        test_groups: groups in test1, whose targets are left out.

    Returns:
        The folder.

    Raises:
        FileExistsError: if the folder holds something else.
    """
    sizes = {"train": train_groups, "val": val_groups, "test1": test_groups}

    def write(folder: Path) -> None:
        described = {split: render_split(folder, seed, split, n) for split, n in sizes.items()}
        write_json(folder / "descriptions.json", described["train"])

    return write_once(root, "minicirr.json", {"version": VERSION, "seed": seed} | sizes, write)


if __name__ == "__main__":
    command_line("Draw MiniCIRR, a small dataset of scenes in groups.", render)

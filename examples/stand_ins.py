"""Draw an image under every name of FashionIQ or CIRR, to rehearse a run before one has them.

    python examples/stand_ins.py fashioniq ANNOTATIONS DIR
    python examples/fashioniq_repro.py --data-root DIR --backbone ... --weights ... --rehearse

ANNOTATIONS is a folder with the published captions and split files, without the images. They are
copied into the new folder DIR, which gets a small drawn image for each name of all splits. The same
few images recur, so the scores mean nothing.
"""

import argparse
import io
from pathlib import Path

import command_line
import numpy as np
from drawn.common import write_once
from PIL import Image

import fusecomp as fc

READERS = {
    "fashioniq": (fc.datasets.FashionIQ, ("train", "val", "test")),
    "cirr": (fc.datasets.CIRR, ("train", "val", "test1")),
}
SIZE, DIFFERENT = (300, 400), 64


def draw(kind: str) -> list[bytes]:
    """Draw some images of few colours and return their files."""
    rng, files = np.random.default_rng(0), []
    for _ in range(DIFFERENT):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 4, 3), np.uint8))
        smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC))
        file = io.BytesIO()
        Image.fromarray(smooth // 16 * 16).save(file, kind)
        files.append(file.getvalue())
    return files


def copy_annotations(source: Path, folder: Path) -> None:
    """Copy the captions and split files, without their rights."""
    for path in sorted(source.rglob("*.json")):
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())


def render(root: Path, annotations: Path, name: str) -> Path:
    """Write the folder unless it is there; return it."""
    reader, splits = READERS[name]

    def write(folder: Path) -> None:
        for split in splits:
            reader(annotations, split)  # an error names this folder, not the copy
        copy_annotations(annotations, folder)
        drawn: dict[str, list[bytes]] = {}
        for split in splits:
            data = reader(folder, split)
            for number, image_id in enumerate(data.image_ids):
                path = data.path(image_id)
                kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
                files = drawn.setdefault(kind, draw(kind) if kind not in drawn else [])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files[number % DIFFERENT])

    return write_once(root, "stand_ins.json", {"of": name}, write)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=READERS)
    parser.add_argument("annotations", metavar="ANNOTATIONS", type=Path)
    parser.add_argument("folder", metavar="DIR", type=Path)
    args = parser.parse_args()
    print(render(args.folder, args.annotations, args.dataset))


if __name__ == "__main__":
    command_line.command(main)

"""Features of images from files against the bare encoder: what the way to it costs.

    python examples/benchmarks/extraction.py [--images 48] [--rounds 3]

A CLIP of RN50x4's size with random weights, and JPEG images of 400 to 600 pixels a side. In
turns: the bare encoder on tensors that are decoded already, and CachedEncoder.build from the files
into a file, with some numbers of workers. Then build again with an encoder that costs nothing, on
the same images several times: how fast images come from disk. The best of each counts. CPU
time is that of all processes; unlike the wall's it hardly depends on what else the machine does.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import photos
import torch
from measure import Cost, best, cost, print_table
from torch import Tensor

import fusecomp as fc

WORKERS = (0, 1, 2)
DECODED = 1000


def show(costs: Mapping[str, Cost], images: int) -> None:
    """Print the table; shares are of the first way."""
    first = next(iter(costs.values()))
    header = ["", "images/s", "x the first", "CPU ms an image", "x the first"]
    rows = [
        [
            name,
            f"{images / own.wall:.2f}",
            f"{first.wall / own.wall:.3f}",
            f"{1e3 * own.cpu / images:.1f}",
            f"{first.cpu / own.cpu:.3f}",
        ]
        for name, own in costs.items()
    ]
    print_table(header, rows)


def build(encoder: fc.Encoder, data: fc.Dataset, folder: str, batch: int, num_workers: int) -> None:
    """Extraction into a file that is not there yet."""
    path = Path(folder) / "features.safetensors"
    path.unlink(missing_ok=True)
    # A key spares the hash of the weights, which is paid once for any number of images.
    fc.CachedEncoder.build(
        encoder, data, path=path, key="k", batch_size=batch, num_workers=num_workers
    )


def mean_colours(images: Tensor) -> Tensor:
    """[B, 3, size, size] -> [B, 3]."""
    return images.mean((2, 3))


def ones(texts: list[str]) -> Tensor:
    """[B, 3]."""
    return torch.ones(len(texts), 3)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    clip = photos.make_clip().eval()
    key = cost(clip.fingerprint).wall
    load = clip.load_image
    if load is None:
        raise SystemExit("the CLIP has no preprocessing")
    clip = clip.to(args.device)
    with tempfile.TemporaryDirectory() as folder:
        files = photos.draw(Path(folder), args.images)
        size = sum(path.stat().st_size for path in files) / len(files)
        batches = torch.stack([load(path) for path in files]).split(args.batch_size)

        def bare() -> None:
            with torch.no_grad():
                for batch in batches:
                    clip.encode_image(batch.to(args.device)).cpu()

        def ways(encoder: fc.Encoder, data: fc.Dataset) -> dict[str, Callable[[], object]]:
            options = (encoder, data, folder, args.batch_size)
            return {f"build, {n} workers": partial(build, *options, n) for n in WORKERS}

        texts = ["is blue"]
        print(
            f"{photos.BACKBONE}, {args.images} JPEG images of {size / 1e3:.0f} kB, batch "
            f"{args.batch_size}, {args.device}, {torch.get_num_threads()} threads, "
            f"best of {args.rounds}; the hash of the weights, once: {key:.1f} s\n"
        )
        data = photos.make_dataset(files, texts)
        show(best({"bare encoder": bare, **ways(clip, data)}, args.rounds), args.images)
        print("\nDecoding alone\n")
        nothing = fc.DualEncoder(mean_colours, ones, load)
        many = photos.make_dataset((DECODED * files)[:DECODED], texts)
        show(best(ways(nothing, many), args.rounds), DECODED)


if __name__ == "__main__":
    main()

"""A folder of FashionIQ's size with planted faults: is each found, and how long does it take?

    python examples/benchmarks/verify.py [--images 74381] [--num-workers 2] [--decode]

The images are small JPEG (baseline, progressive, with a thumbnail), PNG, WebP and GIF files,
under .jpg and .png names whatever their format; a comment makes each another file. Then faults are
planted, `verify` runs, and the table shows what it found of them.
"""

import argparse
import io
import json
import random
import shutil
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import fusecomp as fc

CATEGORIES, SPLITS = ("dress", "shirt", "toptee"), ("train", "val", "test")
SIZES = ((96, 128), (120, 160), (160, 200))
BASES, PLANTED = 60, 25


def main() -> None:
    """Make the folder, verify it, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=74_381)
    parser.add_argument("--num-workers", type=int, default=2, help="threads")
    parser.add_argument("--decode", action="store_true", help="read every pixel too")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp())
    try:
        began = time.perf_counter()
        ids = draw(root, options.images, random.Random(options.seed))
        planted = plant(root / "images", ids, random.Random(options.seed + 1))
        print(f"{options.images:,} images made in {time.perf_counter() - began:.0f} s")
        report = fc.datasets.FashionIQ.verify(
            root, decode=options.decode, num_workers=options.num_workers
        )
    finally:
        shutil.rmtree(root)
    show(report, planted)


def draw(root: Path, count: int, rng: random.Random) -> list[str]:
    """Write the annotations and images of a dataset in FashionIQ's layout; return the ids."""
    ids = [f"B{number:09d}" for number in range(count)]
    for folder in ("captions", "image_splits", "images"):
        (root / folder).mkdir()
    parts = [(category, split) for category in CATEGORIES for split in SPLITS]
    for number, (category, split) in enumerate(parts):
        name = f"{category}.{split}.json"
        own = ids[number :: len(parts)]
        pair = {"candidate": own[0], "target": own[1], "captions": ["is blue", "has dots"]}
        (root / "image_splits" / f"split.{name}").write_text(json.dumps(own))
        (root / "captions" / f"cap.{name}").write_text(json.dumps([pair]))
    bases = [base(number, rng) for number in range(BASES)]
    for number, image_id in enumerate(ids):
        content, mark = bases[number % BASES]
        suffix = ".png" if number % 3 else ".jpg"
        (root / "images" / (image_id + suffix)).write_bytes(mark(content, image_id.encode()))
    return ids


Mark = Callable[[bytes, bytes], bytes]


def base(number: int, rng: random.Random) -> tuple[bytes, Mark]:
    """The bytes of one image, and what makes another file of them without drawing again."""
    size = SIZES[number % len(SIZES)]
    small = Image.frombytes("RGB", (12, 16), rng.randbytes(3 * 12 * 16))
    image = small.resize(size, Image.Resampling.BICUBIC)
    kinds: tuple[tuple[str, dict[str, object], Mark], ...] = (
        ("JPEG", {}, mark_jpeg),
        ("JPEG", {"progressive": True}, mark_jpeg),
        ("JPEG", {"exif": b"Exif\0\0" + encoded(small, "JPEG")}, mark_jpeg),
        ("PNG", {}, mark_png),
        ("WEBP", {}, mark_webp),
        ("GIF", {}, mark_behind),
    )
    # Shops have JPEG above all, and hardly any GIF.
    kind, options, mark = kinds[(0, 0, 0, 0, 1, 2, 3, 3, 4, 5)[number % 10]]
    return encoded(image, kind, **options), mark


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of an image's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def mark_jpeg(content: bytes, text: bytes) -> bytes:
    """A comment segment behind the start."""
    return content[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + content[2:]


def mark_png(content: bytes, text: bytes) -> bytes:
    """A text chunk before the end chunk, of 12 bytes."""
    chunk = b"tEXtid\0" + text
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content[:-12] + framed + content[-12:]


def mark_webp(content: bytes, text: bytes) -> bytes:
    """A chunk of no known kind at the end; the size of the whole stands in front."""
    chunk = b"note" + struct.pack("<I", len(text)) + text + bytes(len(text) % 2)
    size = int.from_bytes(content[4:8], "little") + len(chunk)
    return content[:4] + struct.pack("<I", size) + content[8:] + chunk


def mark_behind(content: bytes, text: bytes) -> bytes:
    """Bytes behind the end."""
    return content + text


def plant(images: Path, ids: list[str], rng: random.Random) -> dict[str, set[str]]:
    """Damage some images of each kind of file; return what must be found, by kind of finding."""
    files = {path.stem: path for path in images.iterdir()}
    chosen = rng.sample(ids, 6 * PLANTED)
    groups = [chosen[start::6] for start in range(6)]
    missing, empty, truncated, pages, placeholders, twins = groups
    dot = encoded(Image.new("RGB", (1, 1)), "GIF")
    for number in range(PLANTED):
        files[missing[number]].unlink()
        files[empty[number]].write_bytes(b"")
        content = files[truncated[number]].read_bytes()
        files[truncated[number]].write_bytes(content[: int(len(content) * rng.uniform(0.1, 0.95))])
        page = f"<!DOCTYPE html><title>{number}: not found</title>"
        files[pages[number]].write_text(page)
        files[placeholders[number]].write_bytes(dot + bytes([number]))
        (images / f"stray{number}.jpg").write_bytes(mark_jpeg(SOUND, b"%d" % number))
    pairs = list(zip(twins[::2], twins[1::2], strict=False))
    for one, other in pairs:
        shutil.copy(files[one], files[other])
    return {
        "missing": set(missing),
        "empty": set(empty),
        "truncated": set(truncated),
        "unreadable": set(pages),
        "placeholder": set(placeholders),
        "duplicate": {" = ".join(sorted(pair)) for pair in pairs},
        "unknown": {f"stray{number}.jpg" for number in range(PLANTED)},
    }


SOUND = encoded(Image.new("RGB", (24, 24)), "JPEG")


def show(report: fc.datasets.VerifyReport, planted: dict[str, set[str]]) -> None:
    """Print what was found of what was planted; leave with status 1 if anything differs."""
    found = {finding.kind: set(finding.names) for finding in report.findings}
    print(f"verified in {report.seconds:.1f} s, {report.images / report.seconds:,.0f} a second")
    print(f"{'':<12} {'planted':>8} {'found':>8} {'missed':>8} {'false':>8}")
    right = True
    for kind, names in planted.items():
        own = found.get(kind, set())
        missed, false = len(names - own), len(own - names)
        right = right and not missed and not false
        print(f"{kind:<12} {len(names):>8} {len(names & own):>8} {missed:>8} {false:>8}")
    # The tiny caption files have other counts than the published ones; anything else is wrong.
    others = set(found) - set(planted) - {"counts", "complete"}
    if others or not right:
        raise SystemExit(f"not as planted: {sorted(others)}")


if __name__ == "__main__":
    main()

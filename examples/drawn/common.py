"""What the drawn datasets have in common: light, a choice of words, a folder that is written once.

A drawn dataset takes all its chances from one random generator, so that a seed fixes its images
and its words; a file in its folder keeps the settings that it was drawn with.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image

Points = list[tuple[float, float]]
RGB = tuple[int, int, int]

SIDE = 64
FINE = 2  # images are drawn this many times larger, then reduced, which smooths their edges


def mirrored(points: Points) -> Points:
    """The left side of what has a right side."""
    return [(-x, y) for x, y in reversed(points)]


def shade(colour: RGB, factor: float) -> RGB:
    """A darker (factor below 1) or lighter colour."""
    red, green, blue = (min(255, int(value * factor)) for value in colour)
    return red, green, blue


def lit(rng: Generator, canvas: Image.Image) -> Image.Image:
    """The large drawing at its final size, in light that comes from some side."""
    ramp, tilt = np.linspace(-1, 1, SIDE), rng.normal(0, 0.07, size=2)
    light = rng.uniform(0.85, 1.08) + tilt[0] * ramp[:, None] + tilt[1] * ramp
    pixels = np.asarray(canvas.reduce(FINE)) * light.astype(np.float32)[:, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def choose(rng: Generator, options: Sequence[str]) -> str:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def with_article(phrase: str) -> str:
    """The phrase behind "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def mistyped(rng: Generator, text: str) -> str:
    """The text with two neighbouring letters in the wrong order."""
    at = int(rng.integers(1, len(text) - 2))
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def write_once(
    root: str | Path, mark: str, settings: Mapping[str, Any], write: Callable[[Path], None]
) -> Path:
    """Write a dataset into a folder, unless it is there already; whole or not at all.

    Args:
        root: the folder, which must not exist, or be empty, or hold this very dataset.
        mark: the file in it that keeps the settings.
        settings: what the dataset depends on, as JSON has it.
        write: fills the folder that it is given.

    Returns:
        The folder, absolute.

    Raises:
        FileExistsError: the folder holds something else.
    """
    root = Path(root).absolute()
    content = json.dumps(settings, indent=1) + "\n"
    if (root / mark).is_file() and (root / mark).read_text(encoding="utf-8") == content:
        return root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(
            f"{root} exists, but does not hold the data set with the settings {settings}; "
            "name another folder, or remove this one first"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as scratch:
        work = Path(scratch) / "set"
        work.mkdir()
        write(work)
        (work / mark).write_text(content, encoding="utf-8")
        work.replace(root)
    return root


def command_line(description: str, render: Callable[[Path, int], Path]) -> None:
    """Draw a dataset into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("root", metavar="DIR", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(render(arguments.root, arguments.seed))

"""Noisy images of any mode, and a transform that shows their pixels."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL import __version__ as pillow_version
from torch import Tensor

from fusecomp.images import SquarePad, TargetPad, clip_transform

PIPELINES = {"clip": None, "targetpad": TargetPad(1.25), "squarepad": SquarePad()}
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16")
WITHOUT_RANGE = ("I", "F")
PILLOW = int(pillow_version.partition(".")[0])
# Pillow 11 is the first that interpolates 16 bits.
RESIZABLE = tuple(mode for mode in MODES if PILLOW >= 11 or mode != "I;16")


def drawn(mode: str, width: int = 12, height: int = 30) -> Image.Image:
    """A noisy image; values of more than 8 bits stay below 256."""
    rng = np.random.default_rng(width * 1000 + height)
    if mode in ("I", "F", "I;16"):
        kind = {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]
        return Image.fromarray(rng.integers(0, 256, (height, width)).astype(kind))
    if mode == "1":
        return drawn("L", width, height).convert("1")
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = rng.integers(0, 256, (height, width, bands), dtype=np.uint8)
    image = Image.frombytes(mode, (width, height), pixels.tobytes())
    if mode == "P":
        image.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tolist())
    return image


def plain(size: int, **options: Any) -> Callable[[Any], Tensor]:
    """A transform whose results are pixels between 0 and 1."""
    return clip_transform(size, mean=(0, 0, 0), std=(1, 1, 1), **options)


def pixels(tensor: Tensor) -> NDArray[np.uint8]:
    """What ``plain`` made, as [size, size, 3] between 0 and 255."""
    values: NDArray[np.uint8] = tensor.mul(255).round().byte().permute(1, 2, 0).numpy()
    return values

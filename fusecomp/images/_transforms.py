"""CLIP's preprocessing: from an image to the tensor that it takes, to the bit as published.

Needs Pillow.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from fusecomp._core.checks import flag, no_class, number, ordered, require_choice, whole_number
from fusecomp._core.identity import describe
from fusecomp.images._opening import ImageLoader, rgb, sides_of

if TYPE_CHECKING:
    from PIL.Image import Image

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class TargetPad:
    """Pad an elongated image until its long side is ``ratio`` times the short one.

    Each short edge gets ``int((long / ratio - short) / 2)`` pixels. They are zeros in the image's
    own mode: black in RGB, transparent in RGBA, the first colour of a palette, but white in CMYK.

    Reference:
        Baldrati, Bertini, Uricchio, Del Bimbo, "Conditioned and composed image retrieval
        combining and partially fine-tuning CLIP-based features", CVPR Workshops 2022.

    Args:
        ratio: the largest ratio that stays as it is; at least 1.

    Shape:
        A PIL image -> a PIL image of the same mode, nowhere smaller.

    Raises:
        ValueError: if ``ratio`` is below 1, or an image has, or would get, no or too many pixels.
        TypeError: on something else than a PIL image.

    Example:
        >>> from PIL import Image
        >>> TargetPad(1.25)(Image.new("RGB", (1000, 200))).size
        (1000, 800)
    """

    ratio: float = 1.25

    def __post_init__(self) -> None:
        ratio: object = self.ratio
        if isinstance(ratio, Tensor) and ratio.ndim == 0:
            ratio = ratio.item()
        # Equal ratios must print alike, as caches are named by it: 1 is 1.0.
        object.__setattr__(self, "ratio", number("ratio", ratio, 1))

    def __call__(self, image: "Image") -> "Image":
        """Return the image, padded if it is too long."""
        width, height = sides_of(image)
        side = max(width, height) / self.ratio
        left, top = max(int((side - width) / 2), 0), max(int((side - height) / 2), 0)
        return _padded(image, left, top) if left or top else image


@dataclass(frozen=True)
class SquarePad:
    """Pad an image to a square.

    Does what ``TargetPad(1)`` does, and raises what it raises. Where the difference of the sides is
    odd, the result is one pixel short of a square, as published.

    Example:
        >>> from PIL import Image
        >>> SquarePad()(Image.new("RGB", (1000, 201))).size
        (1000, 999)
    """

    def __call__(self, image: "Image") -> "Image":
        """Return the image, padded if it is no square."""
        return TargetPad(1)(image)


def clip_transform(
    size: int,
    pad: Callable[["Image"], "Image"] | None = None,
    mean: Sequence[float] = _MEAN,
    std: Sequence[float] = _STD,
    convert: Literal["last", "first"] = "last",
    exif: bool = False,
) -> "_ClipTransform":
    """Return CLIP's preprocessing, a small picklable callable: an encoder's ``load_image``.

    Pad; resize the shorter side to ``size``, bicubic; crop the centre; turn to RGB; divide by 255;
    subtract ``mean`` and divide by ``std``. Without ``pad`` this is OpenAI's preprocessing, with
    ``TargetPad()`` that of CLIP4Cir, both pixel for pixel under the same version of Pillow (from
    version 13 on, some pixels differ in images more than twice as tall as wide).

    The published code turns to RGB **last**, which shows in every mode but RGB and L: P and 1 are
    resized to the nearest pixel; in RGBA and LA what is invisible gets black; CMYK gets white
    padding; I;16, I and F are cut at 255, so a 16-bit image turns almost white (and Pillow before
    version 11 fails on I;16). ``convert="first"`` turns to RGB at the start: palettes are
    interpolated, all padding is black, what transparency hid shows, I;16 loses its lower 8 bits,
    and I and F, which have no known range, are refused.

    Args:
        size: the side of the result in pixels.
        pad: image -> image, such as ``TargetPad()``; picklable, and prints its settings.
        mean: one number a channel, for pixels between 0 and 1; ``std`` too. CLIP's by default.
        std: the same.
        convert: ``"last"`` (as published) or ``"first"``, see above.
        exif: turn and mirror as the file's EXIF block says. The published code does not.

    Shape:
        A path or an open PIL image -> [3, size, size], float32.

    Raises:
        ValueError: on a bad argument.
        TypeError: if ``pad`` cannot be called or is a class.
        ImageError: when called on a file that cannot be read, or that has, or would get, more
            pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` allows; other errors as ``ImageLoader``.

    Example:
        >>> from PIL import Image
        >>> load = clip_transform(224, pad=TargetPad(1.25))
        >>> load(Image.new("L", (90, 1000), 255)).shape
        torch.Size([3, 224, 224])
        >>> load.size, load.pad
        (224, TargetPad(ratio=1.25))
    """
    size = whole_number("size", size, 1)
    no_class("pad", pad)
    if pad is not None and not callable(pad):
        raise TypeError(f"pad must be callable or None, got {pad!r}; for example pad=TargetPad()")
    exif = flag("exif", exif)
    require_choice("convert", convert, ("last", "first"))
    mean, std = _channels("mean", mean), _channels("std", std, positive=True)
    return _ClipTransform(size, pad, mean, std, convert, exif)


@dataclass(frozen=True, repr=False)
class _ClipTransform:
    """CLIP's preprocessing; the fields are the checked arguments of ``clip_transform``."""

    size: int
    pad: Callable[["Image"], "Image"] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    convert: str
    exif: bool

    def __call__(self, image: "str | os.PathLike[str] | Image") -> Tensor:
        """Return one image as [3, size, size]."""
        return ImageLoader(self._tensor)(image)

    def _tensor(self, image: "Image") -> Tensor:
        from PIL import ImageOps
        from PIL.Image import Image

        if self.exif:
            image = ImageOps.exif_transpose(image)
        if self.convert == "first":
            image = rgb(_eight_bits(image))
        if self.pad is not None:
            image = self.pad(image)
            if not isinstance(image, Image):
                returned = f"pad={describe(self.pad)} returned {type(image).__name__}"
                raise TypeError(f"{returned}, expected a PIL image")
        image = rgb(_cropped(_resized(image, self.size), self.size))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        # The published operations in their order, so that not even the last bit differs.
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)

    def __repr__(self) -> str:
        # In full, as caches are named by it: a default that changes must show.
        values = (f"{field.name}={describe(vars(self)[field.name])}" for field in fields(self))
        return f"clip_transform({', '.join(values)})"


def _channels(name: str, values: object, positive: bool = False) -> tuple[float, ...]:
    listed = values.tolist() if isinstance(values, Tensor) else values
    try:
        numbers = tuple(number(name, value) for value in ordered(name, listed, "numbers"))
    except ValueError:
        numbers = ()
    if len(numbers) != 3 or (positive and min(numbers) <= 0):
        kind = "positive" if positive else "finite"
        raise ValueError(f"{name} must be three {kind} numbers, one a channel, got {values!r}")
    return numbers


def _require_room(width: int, height: int, step: str) -> None:
    """Refuse an image so thin that a step would make it fill the memory."""
    from PIL import Image

    # Where Pillow itself refuses a file; thin images within that go through as published.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > 2 * limit:
        raise ValueError(
            f"{step} makes it {width} x {height} pixels, more than twice "
            f"PIL.Image.MAX_IMAGE_PIXELS = {limit}. Crop it if it is thin, or take a smaller size"
        )


def _padded(image: "Image", left: int, top: int) -> "Image":
    """Return the image between as many zeros on opposite edges."""
    from PIL import Image

    width, height = image.width + 2 * left, image.height + 2 * top
    _require_room(width, height, "padding")
    padded = Image.new(image.mode, (width, height))
    palette = image.getpalette()
    if palette is not None:
        padded.putpalette(palette)
    padded.paste(image, (left, top))
    return padded


def _resized(image: "Image", size: int) -> "Image":
    """Return the image with a shorter side of ``size``; the longer one is cut to a whole number."""
    from PIL import Image

    width, height = sides_of(image)
    longer = int(size * max(width, height) / min(width, height))
    sides = (size, longer) if width <= height else (longer, size)
    _require_room(*sides, f"resizing the shorter side to {size}")
    try:
        return image.resize(sides, Image.Resampling.BICUBIC)
    except ValueError as error:
        raise ValueError(
            f"this Pillow cannot resize mode {image.mode} ({error}); use convert='first', "
            "or update Pillow"
        ) from error


def _cropped(image: "Image", size: int) -> "Image":
    """Return the centre of an image; an odd rest goes to the side that round() chooses."""
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _eight_bits(image: "Image") -> "Image":
    from PIL import Image

    if image.mode in ("I", "F"):
        raise ValueError(
            f"mode {image.mode} has no known range of values; bring the image to 8 bits "
            "yourself, or use convert='last', which cuts at 255"
        )
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))

"""From a picture file to the tensor that CLIP takes, to the bit as published. Needs Pillow."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from fusecomp.loading import PictureError
from fusecomp.modules import describe

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "PictureLoader",
    "SquarePad",
    "TargetPad",
    "clip_transform",
    "open_picture",
    "require_pillow",
    "why_unreadable",
]

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_TRUST = "If you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS"


@dataclass(frozen=True)
class TargetPad:
    """Pad an elongated picture until its long side is ``ratio`` times the short one.

    A picture of ratio r = long / short <= ``ratio`` is returned as it is. Of any other, each short
    edge gets ``int((long / ratio - short) / 2)`` pixels, so the ratio after padding is exact up to
    two pixels of the short side. They are zeros in the picture's own mode: black in RGB,
    transparent in RGBA, the first colour of a palette, but white in CMYK.

    Reference:
        Baldrati, Bertini, Uricchio, Del Bimbo, "Conditioned and composed image retrieval
        combining and partially fine-tuning CLIP-based features", CVPR Workshops 2022.

    Args:
        ratio: the largest ratio that stays as it is; at least 1.

    Shape:
        A PIL picture -> a PIL picture of the same mode, nowhere smaller.

    Raises:
        ValueError: if ``ratio`` is below 1 or not finite; if a picture has no pixels, or its
            padding would need more memory than Pillow's limit for files grants.
        TypeError: if it gets something else than a PIL picture.

    Example:
        >>> from PIL import Image
        >>> TargetPad(1.25)(Image.new("RGB", (1000, 200))).size
        (1000, 800)
    """

    ratio: float = 1.25

    def __post_init__(self) -> None:
        ratio = _number(self.ratio)
        if not (math.isfinite(ratio) and ratio >= 1):
            raise ValueError(
                f"ratio must be a finite number of at least 1 (1 pads to a square), "
                f"got {self.ratio!r}"
            )
        # Equal ratios must print alike, as caches are named by it: 1 is 1.0.
        object.__setattr__(self, "ratio", ratio)

    def __call__(self, picture: "Image") -> "Image":
        """The picture, padded if it is too long."""
        width, height = _sides(picture)
        wanted = max(width, height) / self.ratio
        return _padded(picture, int((wanted - width) / 2), int((wanted - height) / 2))


@dataclass(frozen=True)
class SquarePad:
    """Pad a picture to a square.

    Each short edge gets ``int((long - short) / 2)`` zeros in the picture's own mode, as TargetPad
    has it; where the difference is odd, the result is one pixel short of a square, as published.

    Reference:
        Baldrati, Bertini, Uricchio, Del Bimbo, "Conditioned and composed image retrieval
        combining and partially fine-tuning CLIP-based features", CVPR Workshops 2022.

    Shape:
        A PIL picture -> a PIL picture of the same mode, nowhere smaller.

    Raises:
        ValueError: if a picture has no pixels, or its padding would need more memory than
            Pillow's limit for files grants.
        TypeError: if it gets something else than a PIL picture.

    Example:
        >>> from PIL import Image
        >>> SquarePad()(Image.new("RGB", (1000, 200))).size
        (1000, 1000)
        >>> SquarePad()(Image.new("RGB", (1000, 201))).size
        (1000, 999)
    """

    def __call__(self, picture: "Image") -> "Image":
        """The picture, padded if it is no square."""
        width, height = _sides(picture)
        wanted = max(width, height)
        return _padded(picture, (wanted - width) // 2, (wanted - height) // 2)


def clip_transform(
    size: int,
    pad: Callable[["Image"], "Image"] | None = None,
    mean: Sequence[float] = _MEAN,
    std: Sequence[float] = _STD,
    convert: Literal["last", "first"] = "last",
    exif: bool = False,
) -> "_ClipTransform":
    """CLIP's preprocessing, a small picklable callable: an encoder's ``load``.

    Pad; resize the shorter side to ``size``, bicubic, the longer one to
    ``int(size * long / short)``; crop the centre; turn to RGB; divide by 255; subtract ``mean`` and
    divide by ``std``. Without ``pad`` this is OpenAI's preprocessing, with ``TargetPad()`` that of
    CLIP4Cir, both pixel for pixel under the same version of Pillow. (Version 13 shrinks pictures
    more than twice as tall as wide in another order than the versions before, which moves some of
    their pixels where they are not padded.)

    The published code turns to RGB **last**, which shows in every mode but RGB and L:

    - P (a palette) and 1 (black and white) are resized without interpolation, to the nearest pixel;
    - RGBA and LA blend with transparency before it is dropped, so what is invisible gets black
      and soft edges keep their colour;
    - CMYK gets white padding;
    - I;16, I and F (more than 8 bits) are cut at 255, so a 16-bit picture turns almost white;
      Pillow before version 11 cannot resize I;16 and fails.

    ``convert="first"`` turns to RGB at the start: palettes are interpolated, all padding is black,
    what transparency hid shows, I;16 is brought to 8 bits by dropping the lower eight, and I and F,
    which have no known range, are refused.

    Of an animation or a file of several pages the first picture is taken; the format is told by the
    content, whatever the file is called. Files are not decoded at reduced size, as that would
    change pixels.

    Reference:
        Radford et al., "Learning transferable visual models from natural language supervision",
        ICML 2021.

    Args:
        size: the side of the result in pixels.
        pad: picture -> picture, such as ``TargetPad()`` or ``SquarePad()``. One of your own should
            be picklable and print its settings: a dataclass, or a function at the top of a module.
        mean: one number a channel, for pixels between 0 and 1; CLIP's by default.
        std: the same.
        convert: ``"last"`` (as published) or ``"first"``, see above.
        exif: turn and mirror as the file's EXIF block says. The published code does not.

    Shape:
        A path or an open PIL picture -> [3, size, size], float32.

    Raises:
        ValueError: here, on a bad argument; when called, as PictureError that names the file, if
            it cannot be read, has more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``, or would need
            as much memory on the way.
        FileNotFoundError: when called, if there is no such file.
        TypeError: when called, on something else than a path or a PIL picture.
        ImportError: when called, if Pillow is missing.

    Example:
        >>> from PIL import Image
        >>> load = clip_transform(224, pad=TargetPad(1.25))
        >>> load(Image.new("L", (90, 1000), 255)).shape
        torch.Size([3, 224, 224])
        >>> load.size, load.pad
        (224, TargetPad(ratio=1.25))
    """
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size must be a whole number of at least 1, got {size!r}")
    if pad is not None and not callable(pad):
        raise TypeError(f"pad must be callable or None, got {pad!r}; for example pad=TargetPad()")
    if not isinstance(exif, (bool, np.bool_)):
        raise ValueError(f"exif must be True or False, got {exif!r}")
    if convert not in ("last", "first"):
        raise ValueError(f"unknown convert {convert!r}; valid: 'last', 'first'")
    return _ClipTransform(
        int(size),
        pad,
        _channels("mean", mean),
        _channels("std", std, positive=True),
        convert,
        bool(exif),
    )


@dataclass(frozen=True, repr=False)
class _ClipTransform:
    """What clip_transform returns. The fields are its arguments, checked."""

    size: int
    pad: Callable[["Image"], "Image"] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    convert: str
    exif: bool

    def __call__(self, picture: "str | os.PathLike[str] | Image") -> Tensor:
        """One picture as [3, size, size]."""
        if isinstance(picture, (str, os.PathLike)):
            return _load(Path(picture), self._tensor)
        _sides(picture)
        return self._tensor(picture)

    def _tensor(self, picture: "Image") -> Tensor:
        if self.exif:
            from PIL import ImageOps

            picture = ImageOps.exif_transpose(picture)
        if self.convert == "first":
            picture = _rgb(_eight_bits(picture))
        if self.pad is not None:
            picture = _picture(self.pad(picture), f"pad={describe(self.pad)}")
        picture = _rgb(_cropped(_resized(picture, self.size), self.size))
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
        # The published operations in their order, so that not even the last bit differs.
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)

    def __repr__(self) -> str:
        # In full, as caches are named by it: a default that changes must show.
        values = (f"{field.name}={describe(getattr(self, field.name))}" for field in fields(self))
        return f"clip_transform({', '.join(values)})"


@dataclass(frozen=True, repr=False)
class PictureLoader:
    """An encoder's ``load`` from a transform that takes open PIL pictures, as torchvision's do.

    Args:
        transform: PIL picture -> tensor; picklable, as it runs in worker processes.

    Raises:
        PictureError: when called on a file that cannot be read; names it and the reason.
        FileNotFoundError: when called, if there is no such file.
        ImportError: when called, if Pillow is missing.
    """

    transform: Callable[[Any], Tensor]

    def __call__(self, path: str | os.PathLike[str]) -> Tensor:
        """The picture of a file, transformed."""
        return _load(Path(path), self.transform)

    def __repr__(self) -> str:
        return f"PictureLoader(transform={describe(self.transform)})"


def _load(path: Path, transform: "Callable[[Image], Tensor]") -> Tensor:
    require_pillow()
    with path.open("rb") as file:
        try:
            return transform(open_picture(file))
        except (MemoryError, ImportError, PictureError):  # not about the file, or names it already
            raise
        except Exception as error:
            raise PictureError(
                f"cannot read the picture {path} ({why_unreadable(file, error)}); "
                "replace the file, or leave out what needs it"
            ) from error


def require_pillow() -> None:
    """Raise ImportError that says how to install Pillow, if it is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImportError('pictures need Pillow: pip install "fusecomp[images]"') from error


def _number(value: Any) -> float:
    """The value as a float; nan if it is no real number."""
    if isinstance(value, (str, bytes, bool)):  # which float() would take
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last of tensors
        return math.nan


def _channels(name: str, values: Sequence[float], positive: bool = False) -> tuple[float, ...]:
    try:
        numbers = tuple(_number(value) for value in values)
    except TypeError:
        numbers = ()
    valid = all(math.isfinite(number) and (number > 0 or not positive) for number in numbers)
    if len(numbers) != 3 or not valid:
        kind = "positive" if positive else "finite"
        raise ValueError(f"{name} must be three {kind} numbers, one a channel, got {values!r}")
    return numbers


def _picture(result: Any, source: str) -> "Image":
    """What a user's function returned, if that is a picture."""
    from PIL.Image import Image

    if not isinstance(result, Image):
        raise TypeError(f"{source} returned {type(result).__name__}, expected a PIL picture")
    return result


def _sides(picture: "Image") -> tuple[int, int]:
    """Width and height of a picture that has pixels."""
    require_pillow()
    from PIL.Image import Image

    if not isinstance(picture, Image):
        raise TypeError(
            f"picture must be a PIL picture, got {type(picture).__name__}; "
            "open a file with PIL.Image.open, wrap an array with PIL.Image.fromarray"
        )
    width, height = picture.size
    if width < 1 or height < 1:
        raise ValueError(f"the picture has no pixels: its size is {width} x {height}")
    return width, height


def open_picture(file: BinaryIO) -> "Image":
    """The picture of an open file, its header read; ValueError if it is larger than Pillow's limit.

    What is no picture gives Pillow's own errors, which ``why_unreadable`` puts into words.
    """
    from PIL import Image

    try:
        picture = Image.open(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{error} {_TRUST}") from error
    # Pillow only warns of pictures up to twice its limit, and then the machine may run full.
    limit = Image.MAX_IMAGE_PIXELS
    width, height = _sides(picture)
    if limit is not None and width * height > limit:
        raise ValueError(f"{width} x {height} pixels are more than {limit}. {_TRUST}")
    return picture


def _require_room(width: int, height: int, what: str) -> None:
    """Refuse a picture so thin that ``what`` would make it fill the memory."""
    from PIL import Image

    # Where Pillow itself refuses a file; thin pictures within that go through as published.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > 2 * limit:
        raise ValueError(
            f"{what} makes it {width} x {height} pixels, more than twice "
            f"PIL.Image.MAX_IMAGE_PIXELS = {limit}. Crop it if it is thin, or take a smaller size"
        )


def why_unreadable(file: BinaryIO, error: Exception) -> str:
    """What to tell a user about an error of opening or decoding a file."""
    from PIL import UnidentifiedImageError

    if not isinstance(error, UnidentifiedImageError):
        return f"{type(error).__name__}: {error}"
    file.seek(0)
    head = file.read(24)
    if not head:
        return "the file is empty"
    return f"not a picture that Pillow can open; the file starts with {head!r}"


def _padded(picture: "Image", left: int, top: int) -> "Image":
    """The picture between as many zeros on opposite edges; as it is where there are none."""
    from PIL import Image

    left, top = max(left, 0), max(top, 0)
    if left == top == 0:
        return picture
    width, height = picture.width + 2 * left, picture.height + 2 * top
    _require_room(width, height, "padding")
    padded = Image.new(picture.mode, (width, height))
    palette = picture.getpalette()
    if palette is not None:
        padded.putpalette(palette)
    padded.paste(picture, (left, top))
    return padded


def _resized(picture: "Image", size: int) -> "Image":
    """The picture with a shorter side of ``size``; the longer one is cut to a whole number."""
    from PIL import Image

    width, height = _sides(picture)
    longer = int(size * max(width, height) / min(width, height))
    sides = (size, longer) if width <= height else (longer, size)
    _require_room(*sides, f"resizing the shorter side to {size}")
    try:
        return picture.resize(sides, Image.Resampling.BICUBIC)
    except ValueError as error:
        raise ValueError(
            f"this Pillow cannot resize mode {picture.mode} ({error}); use convert='first', "
            "or update Pillow"
        ) from error


def _cropped(picture: "Image", size: int) -> "Image":
    """The centre of a picture; an odd rest goes to the side that round() chooses."""
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    return picture.crop((left, top, left + size, top + size))


def _rgb(picture: "Image") -> "Image":
    if picture.mode == "RGB":
        return picture
    if "transparency" in picture.info:
        # It plays no part in RGB, but Pillow warns of some forms of it.
        picture = picture.copy()
        del picture.info["transparency"]
    return picture.convert("RGB")


def _eight_bits(picture: "Image") -> "Image":
    from PIL import Image

    if picture.mode in ("I", "F"):
        raise ValueError(
            f"mode {picture.mode} has no known range of values; bring the picture to 8 bits "
            "yourself, or use convert='last', which cuts at 255"
        )
    if not picture.mode.startswith("I;16"):
        return picture
    return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))

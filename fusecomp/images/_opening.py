"""Image files: opened, refused where they are no images or too large. Needs Pillow."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from torch import Tensor

from fusecomp._core.files import open_regular
from fusecomp._core.identity import describe
from fusecomp.images._loading import ImageError, unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

_TRUST = "If you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS"


@dataclass(frozen=True, repr=False)
class ImageLoader:
    """An encoder's ``load_image`` from a transform that takes open PIL images, as torchvision's do.

    Args:
        transform: PIL image -> tensor; picklable, as it runs in worker processes.

    Raises:
        ImageError: when called on a file that cannot be read; names it and the reason.
        OSError: when called, if there is no such file, or it is no regular one.
        ImportError: when called, if Pillow is missing.
    """

    transform: Callable[[Any], Tensor]

    def __call__(self, image: "str | os.PathLike[str] | Image") -> Tensor:
        """Return the image of a file, or an open one, transformed."""
        if not isinstance(image, (str, os.PathLike)):
            sides_of(image)
            return self.transform(image)
        path = Path(image)
        require_pillow()
        with open_regular(path) as file:
            try:
                return self.transform(open_image(file))
            # Not about the file, or naming it already.
            except (MemoryError, ImportError, ImageError):
                raise
            except Exception as error:
                raise unreadable(path, why_unreadable(file, error)) from error

    def __repr__(self) -> str:
        return f"ImageLoader(transform={describe(self.transform)})"


def require_pillow() -> None:
    """Raise ImportError that says how to install Pillow, if it is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImportError('images need Pillow: pip install "fusecomp[images]"') from error


def sides_of(image: "Image") -> tuple[int, int]:
    """Width and height of an image that has pixels."""
    require_pillow()
    from PIL.Image import Image

    if not isinstance(image, Image):
        raise TypeError(
            f"image must be a PIL image, got {type(image).__name__}; "
            "open a file with PIL.Image.open, wrap an array with PIL.Image.fromarray"
        )
    width, height = image.size
    if width < 1 or height < 1:
        raise ValueError(f"the image has no pixels: its size is {width} x {height}")
    return width, height


def open_image(file: BinaryIO) -> "Image":
    """Return the image of an open file; ValueError if it is larger than Pillow's limit."""
    from PIL import Image

    try:
        image = Image.open(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{error} {_TRUST}") from error
    # Pillow only warns of images up to twice its limit, and then the machine may run full.
    limit = Image.MAX_IMAGE_PIXELS
    width, height = sides_of(image)
    if limit is not None and width * height > limit:
        raise ValueError(f"{width} x {height} pixels are more than {limit}. {_TRUST}")
    return image


def why_unreadable(file: BinaryIO, error: Exception) -> str:
    """Tell a user why a file could not be opened or decoded."""
    from PIL import UnidentifiedImageError

    if not isinstance(error, UnidentifiedImageError):
        return f"{type(error).__name__}: {error}"
    file.seek(0)
    if head := file.read(24):
        return f"not an image that Pillow can open; the file starts with {head!r}"
    return "the file is empty"


def rgb(image: "Image") -> "Image":
    """Return the image in RGB; what transparency hid shows."""
    if image.mode == "RGB":
        return image
    if "transparency" in image.info:
        # It plays no part in RGB, but Pillow warns of some forms of it.
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")

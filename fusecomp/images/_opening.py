"""Picture files: opened, refused where they are no pictures or too large. Needs Pillow."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from torch import Tensor

from fusecomp._core.files import open_regular
from fusecomp._core.identity import describe
from fusecomp.images._loading import PictureError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "PictureLoader",
    "open_picture",
    "require_pillow",
    "rgb",
    "sides_of",
    "why_unreadable",
]

_TRUST = "If you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS"


@dataclass(frozen=True, repr=False)
class PictureLoader:
    """An encoder's ``load`` from a transform that takes open PIL pictures, as torchvision's do.

    Args:
        transform: PIL picture -> tensor; picklable, as it runs in worker processes.

    Raises:
        PictureError: when called on a file that cannot be read; names it and the reason.
        FileNotFoundError: when called, if there is no such file.
        OSError: when called, if it is no regular file, or cannot be opened.
        ImportError: when called, if Pillow is missing.
    """

    transform: Callable[[Any], Tensor]

    def __call__(self, path: str | os.PathLike[str]) -> Tensor:
        """The picture of a file, transformed."""
        path = Path(path)
        require_pillow()
        with open_regular(path) as file:
            try:
                return self.transform(open_picture(file))
            # Not about the file, or naming it already.
            except (MemoryError, ImportError, PictureError):
                raise
            except Exception as error:
                raise PictureError(
                    f"cannot read the picture {path} ({why_unreadable(file, error)}); "
                    "replace the file, or leave out what needs it"
                ) from error

    def __repr__(self) -> str:
        return f"PictureLoader(transform={describe(self.transform)})"


def require_pillow() -> None:
    """Raise ImportError that says how to install Pillow, if it is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImportError('pictures need Pillow: pip install "fusecomp[images]"') from error


def sides_of(picture: "Image") -> tuple[int, int]:
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
    width, height = sides_of(picture)
    if limit is not None and width * height > limit:
        raise ValueError(f"{width} x {height} pixels are more than {limit}. {_TRUST}")
    return picture


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


def rgb(picture: "Image") -> "Image":
    """The picture in RGB; what transparency hid shows."""
    if picture.mode == "RGB":
        return picture
    if "transparency" in picture.info:
        # It plays no part in RGB, but Pillow warns of some forms of it.
        picture = picture.copy()
        del picture.info["transparency"]
    return picture.convert("RGB")

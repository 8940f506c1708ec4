"""Small images for sheets and pages. Needs Pillow."""

from pathlib import Path
from typing import TYPE_CHECKING

from fusecomp._core.files import open_regular
from fusecomp.images import open_image, rgb

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["thumbnail"]

_WHITE, _BLACK, _GREY = "#ffffff", "#1a1a1a", "#c9c9c9"


def thumbnail(path: Path, image_id: str, side: int) -> "Image":
    """The image in the middle of a white square; a grey one with its id if it cannot be read."""
    from PIL import Image, ImageDraw

    box = Image.new("RGB", (side, side), _WHITE)
    try:
        with open_regular(path) as file:
            image = _fitted(rgb(open_image(file)), side)
    except (MemoryError, ImportError):  # not about the file
        raise
    except Exception:
        ImageDraw.Draw(box).rectangle((0, 0, side - 1, side - 1), fill=_GREY)
        ImageDraw.Draw(box).text((6, 48), f"no image\n{image_id}"[:30], _BLACK)
        return box
    box.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return box


def _fitted(image: "Image", side: int) -> "Image":
    """The image with a longer side of ``side``."""
    from PIL import Image

    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)

"""Small pictures for sheets and pages. Needs Pillow."""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["pillow", "thumbnail"]

_WHITE, _BLACK, _GREY = "#ffffff", "#1a1a1a", "#c9c9c9"


def pillow() -> tuple[ModuleType, ModuleType, ModuleType]:
    """The modules Image, ImageDraw and ImageFont; raises ImportError that names the extra."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ImportError('drawing needs Pillow: pip install "fusecomp[images]"') from error
    return Image, ImageDraw, ImageFont


def thumbnail(path: Path, image_id: str, side: int) -> "Image":
    """The picture in the middle of a white square; a grey one with its id if it cannot be read."""
    from PIL import Image, ImageDraw

    box = Image.new("RGB", (side, side), _WHITE)
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        ImageDraw.Draw(box).rectangle((0, 0, side - 1, side - 1), fill=_GREY)
        ImageDraw.Draw(box).text((6, 48), f"no picture\n{image_id}"[:30], _BLACK)
        return box
    scale = side / max(picture.size)
    size = [max(1, round(length * scale)) for length in picture.size]
    picture = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    box.paste(picture, ((side - size[0]) // 2, (side - size[1]) // 2))
    return box

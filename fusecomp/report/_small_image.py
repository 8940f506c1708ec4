"""Small images of a dataset, for sheets and pages. Needs Pillow."""

from typing import TYPE_CHECKING

from fusecomp._core.checks import require
from fusecomp._core.files import open_regular
from fusecomp.images import open_image, rgb
from fusecomp.types import Dataset

if TYPE_CHECKING:
    from PIL.Image import Image


def require_dataset(dataset: Dataset) -> None:
    """Raise TypeError unless this is a dataset, which knows where the images are."""
    require("dataset", dataset, "path", "a Dataset", "what is drawn, dataset, path")


def small_image(dataset: Dataset, image_id: str, side: int) -> "Image | None":
    """Read an image, at most ``side`` pixels wide and high; None if it cannot be read."""
    path = dataset.path(image_id)
    try:
        with open_regular(path) as file:
            image = rgb(open_image(file))
            image.thumbnail((side, side))
            image.load()  # a small image is not decoded before
    except (MemoryError, ImportError):  # not about the file
        raise
    except Exception:
        return None
    return image

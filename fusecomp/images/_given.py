"""Images as a person has them: files, opened images, arrays of pixels, loaded tensors."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.checks import shown
from fusecomp._core.progress import progress
from fusecomp._core.randomness import current_key, own_streams, seed_for_file
from fusecomp.images._loading import load_few, require_files
from fusecomp.images._opening import require_pillow
from fusecomp.types import LoadImage

if TYPE_CHECKING:
    from PIL.Image import Image


def load_given(images: Sequence[object], load_image: LoadImage, size: int) -> Iterator[Tensor]:
    """Yield images as batches of ``size``; with a bar where there are several.

    Args:
        images: paths, PIL images, arrays of pixels (uint8 [H, W, 3] or [H, W]), or tensors as
            ``load_image`` returns them.
        load_image: opens what is no tensor.
        size: images at once.

    Raises:
        FileNotFoundError: if files are missing.
        ImageError: if a file cannot be read.
        ValueError: if ``load_image`` takes no opened image, an array is none of pixels, or shapes
            differ.
    """
    given = [Path(image) if isinstance(image, str) else image for image in images]
    require_files([image for image in given if isinstance(image, Path)])
    batches = iter([given[start : start + size] for start in range(0, len(given), size)])
    if len(given) > size:
        batches = progress(batches, len(given), "encoding images", "images", per_item=size)
    return (_batch(batch, load_image) for batch in batches)


def _batch(images: Sequence[object], load_image: LoadImage) -> Tensor:
    paths = [image for image in images if isinstance(image, Path)]
    if len(paths) == len(images):
        return load_few(paths, load_image)
    loaded = [_load(image, load_image) for image in images]
    for image, tensor in zip(images, loaded, strict=True):
        if tensor.shape != loaded[0].shape:
            raise ValueError(
                f"{shown(image)} has shape {list(tensor.shape)} when it is loaded, and "
                f"{shown(images[0])} {list(loaded[0].shape)}: bring every image to one shape"
            )
    return torch.stack(loaded)


def _load(image: object, load_image: LoadImage) -> Tensor:
    if isinstance(image, Path):
        return load_few([image], load_image)[0]
    if isinstance(image, Tensor):
        return image.cpu()
    open_too: Callable[..., object] = load_image
    opened = _pixels(image) if isinstance(image, np.ndarray) else image
    with own_streams():
        seed_for_file(current_key(), Path())
        try:
            loaded = open_too(opened)
        except (MemoryError, ImportError):
            raise
        except Exception as error:
            raise ValueError(
                f"load_image of this encoder does not take {shown(image)} ({error}): images."
                "ImageLoader(transform) and images.clip_transform take opened images; or pass paths"
            ) from error
    if not isinstance(loaded, Tensor):
        raise ValueError(f"load_image returned {type(loaded).__name__}, expected a tensor")
    return loaded


def _pixels(array: NDArray[np.generic]) -> "Image":
    """Return an array of pixels as an opened image."""
    pixels = array.dtype == np.uint8 and (array.ndim, *array.shape[2:]) in ((2,), (3, 3))
    if not pixels or not array.size:
        raise ValueError(
            f"an array of pixels must be uint8 [H, W, 3] or [H, W], got {array.dtype} "
            f"{list(array.shape)}; what load_image returns is given as a tensor"
        )
    require_pillow()
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(array))

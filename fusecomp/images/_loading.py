"""Images from paths, in order, in worker processes where that pays."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fusecomp._core.randomness import Key, current_key, own_streams, seed_for_file

# What may become of images that are missing or broken.
ON_ERROR = ("raise", "skip")

# Below this many images, starting processes costs more than they save.
_FEW = 512
_MOST_WORKERS = 16


class ImageError(ValueError):
    """An image that exists but cannot be read; the message names the file and the reason."""


def unreadable(path: Path, reason: str) -> ImageError:
    """Return the error about an image file that cannot be read."""
    return ImageError(f"cannot read the image {path} ({reason}); replace it, or leave it out")


def require_files(paths: Sequence[Path]) -> None:
    """Raise FileNotFoundError that counts the absent files and names the first ones."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        names = ", ".join(str(path) for path in missing[:5])
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} images are missing, the first: {names}. "
            "Put them there, or leave out the triplets and gallery entries that need them"
        )


# The name of an image.
_K = TypeVar("_K")
_T = TypeVar("_T")


class Loaded(NamedTuple, Generic[_K]):
    """The images of a batch that could be loaded, stacked; their keys; the errors of the others."""

    images: Tensor | None
    keys: list[_K]
    failed: dict[_K, ImageError]


def load_available(
    paths: Mapping[_K, Path],
    load_image: Callable[[Path], Tensor],
    batches: Sequence[list[_K]],
    num_workers: int | None = None,
    device: torch.device | None = None,
    key: Key | None = None,
    on_error: str = "skip",
) -> Iterator[Loaded[_K]]:
    """Yield the images of each list of keys in ``batches``, stacked.

    Random numbers that ``load_image`` draws from ``random``, numpy or torch depend on ``key`` and
    the file's name alone; the caller's streams stay as they are.

    Args:
        paths: the files by any key, such as an image id.
        load_image: path -> tensor; all of one shape; must be picklable if workers start.
        batches: keys of ``paths``; none empty.
        num_workers: processes; None chooses by the number of cores and images.
        device: where the images go; a CPU keeps half of its cores for its work on them.
        key: such as a seed and an epoch; by default that of the ``keyed`` block around it.
        on_error: ``"skip"`` lists the images that cannot be opened, ``"raise"`` stops there.

    Raises:
        ImageError: naming the file that ``load_image`` could not open.
        ValueError: if two images of a batch have different shapes.
    """
    if num_workers is None:
        num_workers = _usual_workers(sum(map(len, batches)), device)
    loader: DataLoader[Any] = DataLoader(
        _Images(paths, load_image, current_key() if key is None else key),  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # else it would draw from the caller's stream
    )
    failure: ValueError | None = None
    for batch in loader:
        if isinstance(batch, ValueError):
            failure = batch
        elif on_error == "raise":
            failure = next(iter(batch.failed.values()), None)
        if failure is not None:
            break
        yield batch
    # Raised out here, where the worker processes have ended, and with its own message alone.
    if failure is not None:
        raise failure


def _usual_workers(count: int, device: torch.device | None) -> int:
    if count < _FEW:
        return 0
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not say which cores a process may use
        cores = os.cpu_count() or 1
    if device is not None and device.type == "cpu":
        cores = max(1, cores // 2)
    return min(cores, _MOST_WORKERS)


class _Images(Generic[_K]):
    def __init__(
        self, paths: Mapping[_K, Path], load_image: Callable[[Path], Tensor], key: Key
    ) -> None:
        self.paths = paths
        self.load_image = load_image
        self.key = key

    def __getitems__(self, keys: Iterable[_K]) -> Loaded[_K] | ValueError:
        """Load a batch: keeping the caller's streams takes as long as opening a small image."""
        loaded: list[_K] = []
        images: list[Tensor] = []
        failed: dict[_K, ImageError] = {}
        with own_streams():
            for key in keys:
                path = self.paths[key]
                seed_for_file(self.key, path)
                try:
                    image = load_one(path, self.load_image)
                except ImageError as error:
                    failed[key] = error
                    continue
                if images and image.shape != images[0].shape:
                    return ValueError(
                        f"{path} has shape {list(image.shape)} and {self.paths[loaded[0]]} "
                        f"{list(images[0].shape)}: load_image must bring every image to one shape"
                    )
                loaded.append(key)
                images.append(image)
        return Loaded(torch.stack(images) if images else None, loaded, failed)


def _as_it_is(batch: _T) -> _T:
    return batch


def load_few(paths: Sequence[Path], load_image: Callable[[Path], Tensor]) -> Tensor:
    """Return some images as one batch, loaded in this process."""
    loaded = _Images(dict(enumerate(paths)), load_image, current_key()).__getitems__(
        range(len(paths))
    )
    if isinstance(loaded, ValueError):
        raise loaded
    for error in loaded.failed.values():
        raise error
    if loaded.images is None:
        raise ValueError("there are no images to load")
    return loaded.images


def load_one(path: Path, load_image: Callable[[Path], Tensor]) -> Tensor:
    """Return one loaded image; ImageError names the file."""
    try:
        image = load_image(path)
    except (MemoryError, ImportError, ImageError):  # not about the file, or names it already
        raise
    except Exception as error:
        raise unreadable(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(image, Tensor):
        raise ImageError(
            f"load_image({path}) returned {type(image).__name__}, expected a tensor; "
            "end your transform with one that makes tensors"
        )
    return image

"""Images from paths, in order, in worker processes where that pays."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
    return ImageError(
        f"cannot read the image {path} ({reason}); replace the file, or leave out what needs it"
    )


def require_files(paths: Sequence[Path]) -> None:
    """Raise FileNotFoundError that counts the absent files and names the first ones."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        names = ", ".join(str(path) for path in missing[:5])
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} images are missing, the first: {names}. "
            "Put them there, or leave out the triplets and gallery entries that need them"
        )


class Loaded(NamedTuple):
    """The images of one batch that could be loaded, and the errors of the others.

    Args:
        images: stacked [B, ...]; None if there are none.
        positions: B of the batch's positions.
        failed: the other positions, with what is wrong.
    """

    images: Tensor | None
    positions: list[int]
    failed: dict[int, ImageError]


def load_images(
    paths: Mapping[int, Path] | Sequence[Path],
    load_image: Callable[[Path], Tensor],
    batches: Sequence[list[int]],
    num_workers: int | None = None,
    device: torch.device | None = None,
    key: Key | None = None,
) -> Iterator[Tensor]:
    """Yield stacked images, one tensor for each list of positions in ``batches``.

    Random numbers that ``load_image`` draws from ``random``, numpy or torch are a function of the
    key and the file's name, in whichever process; the caller's streams stay as they are.

    Args:
        paths: the files, by position.
        load_image: path -> tensor; all of one shape; must be picklable if workers start.
        batches: positions in ``paths``; none empty.
        num_workers: processes; None chooses by the number of cores and images.
        device: where the images are worked on; a CPU keeps half of its cores for that.
        key: such as a seed and an epoch; by default that of the ``keyed`` block around it.

    Raises:
        ImageError: naming the file that ``load_image`` could not open.
        ValueError: if two images of a batch have different shapes.
    """
    failure = None
    for loaded in load_available(paths, load_image, batches, num_workers, device, key):
        failure = next(iter(loaded.failed.values()), None)
        if failure is not None or loaded.images is None:
            break
        yield loaded.images
    # Raised out here, where the worker processes have ended, and with its own message alone.
    if failure is not None:
        raise failure


def load_available(
    paths: Mapping[int, Path] | Sequence[Path],
    load_image: Callable[[Path], Tensor],
    batches: Sequence[list[int]],
    num_workers: int | None = None,
    device: torch.device | None = None,
    key: Key | None = None,
) -> Iterator[Loaded]:
    """Do what ``load_images`` does, but list images that cannot be opened, not raise."""
    if num_workers is None:
        num_workers = _usual_workers(sum(map(len, batches)), device)
    images = _Images(paths, load_image, current_key() if key is None else key)
    loader: DataLoader[Any] = DataLoader(
        images,  # type: ignore[arg-type]  # a map of positions, all that a DataLoader needs
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_collate,
        generator=torch.Generator(),  # else it would draw from the caller's stream
    )
    failure = None
    for batch in loader:
        if isinstance(batch, ValueError):
            failure = batch
            break
        yield batch
    if failure is not None:
        raise failure


def _usual_workers(count: int, device: torch.device | None) -> int:
    if count < _FEW:
        return 0
    cores = _cores()
    if device is not None and device.type == "cpu":
        cores = max(1, cores // 2)
    return min(cores, _MOST_WORKERS)


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not say which cores a process may use
        return os.cpu_count() or 1


_Item = tuple[int, Path, Tensor | ImageError]


class _Images:
    def __init__(
        self,
        paths: Mapping[int, Path] | Sequence[Path],
        load_image: Callable[[Path], Tensor],
        key: Key,
    ) -> None:
        self.paths = paths
        self.load_image = load_image
        self.key = key

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, positions: Sequence[int]) -> list[_Item]:
        """A whole batch: keeping the caller's streams takes as long as opening a small image."""
        with own_streams():
            return [self._item(position) for position in positions]

    def _item(self, position: int) -> _Item:
        path = self.paths[position]
        seed_for_file(self.key, path)
        try:
            return position, path, load_one(path, self.load_image)
        except ImageError as error:
            return position, path, error


def load_few(paths: Sequence[Path], load_image: Callable[[Path], Tensor]) -> Tensor:
    """Return one batch, as ``load_images`` gives it, in this process and without a loader."""
    images = []
    for _, path, item in _Images(paths, load_image, current_key()).__getitems__(range(len(paths))):
        if isinstance(item, ImageError):
            raise item
        images.append((path, item))
    return stack_images(images)


def load_one(path: Path, load_image: Callable[[Path], Tensor]) -> Tensor:
    """Return one loaded image; raises ImageError that names the file."""
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


def _collate(items: list[_Item]) -> Loaded | ValueError:
    failed = {index: item for index, _, item in items if isinstance(item, ImageError)}
    good = [(path, item) for _, path, item in items if isinstance(item, Tensor)]
    positions = [index for index, _, item in items if isinstance(item, Tensor)]
    try:
        return Loaded(stack_images(good) if good else None, positions, failed)
    except ValueError as error:
        return error


def stack_images(items: Sequence[tuple[Path, Tensor]]) -> Tensor:
    """Images of one shape as one tensor; raises ValueError that names two of unlike shapes."""
    first_path, first = items[0]
    for path, image in items:
        if image.shape != first.shape:
            raise ValueError(
                f"{path} has shape {list(image.shape)} and {first_path} {list(first.shape)}: "
                "load_image must bring every image to one shape"
            )
    return torch.stack([image for _, image in items])

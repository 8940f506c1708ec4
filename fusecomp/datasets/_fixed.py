from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from fusecomp.types import Triplet

__all__ = ["FixedTriplets"]


class FixedTriplets:
    """What datasets are alike in whose triplets are the same in every epoch.

    Args:
        triplets: all of them.
        files: the place of each image below the folder, by image id.
        images: the folder.
    """

    def __init__(self, triplets: Sequence[Triplet], files: Mapping[str, str], images: Path) -> None:
        self._triplets = list(triplets)
        self._files = files
        self._images = images

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        """Every image of the gallery, once."""
        return tuple(self._files)

    @cached_property
    def triplet_image_ids(self) -> tuple[str, ...]:
        """The references and targets of all triplets, once."""
        return tuple(dict.fromkeys(i for query in self._triplets for i in query.image_ids))

    def path(self, image_id: str) -> Path:
        """Where the image lies, or would lie.

        Raises:
            ValueError: if the gallery does not have the image.
        """
        if image_id not in self._files:
            raise ValueError(f"unknown image {image_id!r}: not in the gallery of {self!r}")
        return self._images / self._files[image_id]

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[Triplet]:
        """The triplets in the order of the file, the same in every epoch."""
        return list(self._triplets)

    def texts(self) -> list[str]:
        """Every text of the triplets, once."""
        return list(dict.fromkeys(text for query in self._triplets for text in query.texts))

    def __len__(self) -> int:
        return len(self._triplets)

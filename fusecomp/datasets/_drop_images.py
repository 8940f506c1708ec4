from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from fusecomp._core.abilities import protocol_of, training_image_ids
from fusecomp._core.checks import as_text, ordered, require, shown, strings
from fusecomp.types import Dataset, Task, Triplet


def drop_images(dataset: Dataset, image_ids: Collection[str]) -> Dataset:
    """Return a dataset without some images, such as those that are missing or broken.

    Triplets, queries, gallery entries and members of subsets that need them are left out. The
    tasks list the queries and gallery images that they lack; the protocol, which evaluation prints
    with the scores, has their numbers.

    Args:
        dataset: is not changed.
        image_ids: what to leave out, such as ``cached_encoder.skipped``; unknown ids are ignored.

    Raises:
        TypeError: if dataset is no dataset, or image_ids hold anything but strings.
        ValueError: if no triplet is left, or ``image_ids`` is a plain string.

    Example:
        >>> from fusecomp.datasets import Triplets
        >>> rows = [Triplet(x + y, x, (f"is {y}",), target_id=y) for x, y in ("ab", "ba", "bc")]
        >>> data = drop_images(Triplets(rows), ["c"])
        >>> len(data), data.tasks()[0].missing_images, data.protocol["missing"]
        (2, ('c',), '1 of 3 queries, 1 of 3 gallery images')
    """
    require("dataset", dataset, "tasks", "a Dataset", "dataset, image_ids")
    if isinstance(image_ids, str):
        raise ValueError(f"image_ids must be a list of strings, got the string {image_ids!r}")
    if not isinstance(image_ids, Iterable):
        raise TypeError(f"image_ids must be a list of strings, got {shown(image_ids)}")
    missing = frozenset(as_text("each of image_ids", i) for i in image_ids)
    missing &= frozenset(strings("image_ids of a dataset", dataset.image_ids))
    if not missing:
        return dataset
    reduced = _Without(dataset, missing)
    if not len(reduced):
        raise ValueError(
            f"each of the {len(dataset)} triplets of {dataset!r} needs one of the {len(missing)} "
            "images to leave out: nothing remains"
        )
    return reduced


class _Without:
    def __init__(self, dataset: Dataset, missing: frozenset[str]) -> None:
        self._dataset = dataset
        self._missing = missing
        self.image_ids = self._kept(dataset.image_ids)
        self.triplet_image_ids = self._kept(training_image_ids(dataset))

    def __getattr__(self, name: str) -> object:
        # Only what this class lacks is looked up here; copying and pickling ask before __init__.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def _kept(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(image_id for image_id in image_ids if image_id not in self._missing)

    def _remains(self, triplet: Triplet) -> bool:
        return self._missing.isdisjoint(triplet.image_ids)

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[Triplet]:
        triplets = self._dataset.triplets(epoch, seed)
        listed = ordered("triplets() of a dataset", triplets, "triplets")
        return [triplet for triplet in listed if self._remains(triplet)]

    # Both are here, as isinstance(..., Dataset) does not ask __getattr__ from Python 3.12 on.
    def path(self, image_id: str) -> Path:
        return self._dataset.path(image_id)

    def texts(self) -> Sequence[str]:
        return self._dataset.texts()

    def tasks(self) -> list[Task]:
        return [task.drop_images(self._missing) for task in self._dataset.tasks()]

    @property
    def protocol(self) -> Mapping[str, str]:
        # Counted here, as a task that keeps no query cannot be made.
        queries = all_queries = images = all_images = 0
        for task in self._dataset.tasks():
            queries += sum(not self._remains(query) for query in task.queries)
            queries += len(task.missing_queries)
            all_queries += len(task.queries) + len(task.missing_queries)
            images += len(self._missing.intersection(task.gallery)) + len(task.missing_images)
            all_images += len(task.gallery) + len(task.missing_images)
        missing = (
            f"{queries:,} of {all_queries:,} queries, {images:,} of {all_images:,} gallery images"
        )
        return {**protocol_of(self._dataset), "missing": missing}

    def __len__(self) -> int:
        return len(self.triplets())

    def __repr__(self) -> str:
        return f"{self._dataset!r} without {len(self._missing)} images"

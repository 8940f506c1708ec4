from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from numbers import Integral
from pathlib import Path

from fusecomp._core.checks import as_path, as_text, flag, list_of, ordered, shown, strings
from fusecomp._core.metrics import metrics_at
from fusecomp._core.task import repeated
from fusecomp.datasets._folder import ImageFolder
from fusecomp.types import Task, Triplet


class Triplets:
    """Dataset of given triplets, the same in every epoch, with one task over all its images.

    Its images are those of ``gallery``, then those that only the triplets name. Where the triplets
    have a group, each query is also ranked among its group without the reference. Where one has
    ``other_target_ids``, mAP@k is measured too, over all right answers of each.

    Args:
        triplets: at least one, each with a ``query_id`` of its own; either all have a group or
            none.
        images: the folder of the images, where an id is a path with or without its suffix; a
            mapping from each id to its file; or None where nothing opens them.
        ks: the k of recall@k and map@k, each once.
        gallery: ids to rank beyond those that the triplets name.
        exclude_reference: leave each query's reference out of its ranking.
        name: the dataset's name in the protocol.

    Raises:
        TypeError: if images is no path, mapping or None, or name no string.
        FileNotFoundError: if there is no such folder, or no image of an id in it.
        ValueError: if triplets or ks are not as above, or an id has no file in a mapping or may be
            two files of a folder; the message names the query.

    Example:
        >>> rows = [Triplet("q0", "red", ("is blue",), target_id="blue")]
        >>> data = Triplets(rows, images={"red": "shop/1.jpg", "blue": "shop/2.jpg"}, ks=(1,))
        >>> data.image_ids, data.path("blue").name, data.tasks()[0].exclude
        (('red', 'blue'), '2.jpg', (('red',),))
    """

    def __init__(
        self,
        triplets: Sequence[Triplet],
        images: str | Path | Mapping[str, str | Path] | None = None,
        *,
        ks: Sequence[int] = (1, 5, 10, 50),
        gallery: Sequence[str] = (),
        exclude_reference: bool = True,
        name: str = "Triplets",
    ) -> None:
        self.name = as_text("name", name)
        self.ks = _as_ks(ks)
        self.exclude_reference = flag("exclude_reference", exclude_reference)
        self._triplets = _checked(triplets)
        image_ids = dict.fromkeys(chain(strings("gallery", gallery), _named(self._triplets)))
        self._paths = _paths(images, image_ids, self._where)
        self._known = frozenset(image_ids)
        self.image_ids = tuple(image_ids)

    @cached_property
    def triplet_image_ids(self) -> tuple[str, ...]:
        """The references and targets of all triplets, once."""
        return tuple(dict.fromkeys(i for query in self._triplets for i in query.image_ids))

    @property
    def protocol(self) -> Mapping[str, str]:
        """The options that make scores comparable or not."""
        reference = "excluded" if self.exclude_reference else "kept"
        return {"dataset": self.name, "reference": reference}

    def path(self, image_id: str) -> Path:
        """Return where the image is, or would be.

        Raises:
            ValueError: if the gallery does not have the image.
            FileNotFoundError: if the dataset was made without images.
        """
        if image_id not in self._known:
            raise ValueError(f"unknown image {image_id!r}: not in the gallery of {self!r}")
        if self._paths is None:
            raise FileNotFoundError(
                f"no file of image {image_id!r}: {self!r} was made without images; pass images=, "
                "a folder or a mapping, or an encoder with cached features"
            )
        return self._paths[image_id]

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[Triplet]:
        """Return the triplets in the order given, the same in every epoch."""
        return list(self._triplets)

    def texts(self) -> list[str]:
        """Return every text of the triplets, once."""
        return list(dict.fromkeys(text for query in self._triplets for text in query.texts))

    def tasks(self) -> list[Task]:
        """Return one task, without a name."""
        queries = self._triplets
        subsets = [
            tuple(i for i in query.group if i != query.reference_id)
            for query in queries
            if query.group is not None
        ]
        several = any(query.other_target_ids for query in queries)
        task = Task(
            name="",
            queries=queries,
            gallery=self.image_ids,
            exclude=[(q.reference_id,) for q in queries] if self.exclude_reference else None,
            subsets=subsets or None,
            metrics=metrics_at(self.ks, subsets=bool(subsets), several=several),
        )
        return [task]

    def _where(self, image_id: str) -> str:
        queries = (q.query_id for q in self._triplets if image_id in _named([q]))
        return next((f"query {query_id!r}" for query_id in queries), "gallery")

    def __len__(self) -> int:
        return len(self._triplets)

    def __repr__(self) -> str:
        return f"{self.name}({len(self)} triplets, {len(self.image_ids)} images)"


def _as_ks(ks: Sequence[int]) -> tuple[int, ...]:
    given = ordered("ks", ks, "whole numbers")
    whole = all(isinstance(k, Integral) and not isinstance(k, bool) and int(k) > 0 for k in given)
    if not whole or not given or len({*given}) < len(given):
        raise ValueError(
            f"ks must be whole numbers above 0, at least one; got {shown(tuple(given))}, "
            "expected such as (1, 5, 10)"
        )
    return tuple(int(k) for k in given)


def _named(triplets: Iterable[Triplet]) -> dict[str, None]:
    """Return the images that triplets name, once."""
    named: dict[str, None] = {}
    for query in triplets:
        named[query.reference_id] = None
        if query.target_id is not None:
            named[query.target_id] = None
        if query.other_target_ids or query.group is not None:
            named |= dict.fromkeys((*query.other_target_ids, *(query.group or ())))
    return named


def _checked(triplets: Sequence[Triplet]) -> list[Triplet]:
    checked: list[Triplet] = list_of("triplets", triplets, Triplet, "triplets")
    if not checked:
        raise ValueError("triplets must hold one triplet at least, got none")
    for query_id in repeated([triplet.query_id for triplet in checked]):
        raise ValueError(f"two triplets have the query_id {query_id!r}; number them")
    grouped = [triplet.group is not None for triplet in checked]
    if any(grouped) and not all(grouped):
        query_id = checked[grouped.index(False)].query_id
        raise ValueError(
            f"query {query_id!r} has no group, though others have one; give every triplet a "
            "group, or none"
        )
    return checked


def _paths(
    images: object, image_ids: Collection[str], where: Callable[[str], str]
) -> Mapping[str, Path] | None:
    """Return the file of each image id; errors begin with ``where`` it is named."""
    if images is None:
        return None
    if not isinstance(images, Mapping):
        folder = ImageFolder(as_path("images", images))
        return {i: folder.root / name for i, name in folder.files(image_ids, where).items()}
    missing = [image_id for image_id in image_ids if image_id not in images]
    if missing:
        raise ValueError(
            f"{where(missing[0])}: images has no file of {missing[0]!r}; {len(missing)} of the "
            f"{len(image_ids)} image ids are not in it"
        )
    return {image_id: as_path(f"images[{image_id!r}]", images[image_id]) for image_id in image_ids}

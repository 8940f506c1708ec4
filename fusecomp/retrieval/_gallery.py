from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fusecomp._core.abilities import known_fingerprint
from fusecomp._core.checks import as_path, as_text, ordered, strings
from fusecomp._core.files import reading
from fusecomp._core.index import check_index
from fusecomp._core.indices import check_indices
from fusecomp._core.tensors import (
    Array,
    as_tensor,
    check_features,
    check_finite,
    check_tensor,
    check_widths,
    widen,
)
from fusecomp.retrieval._attributes import Value, check_images
from fusecomp.retrieval._encode_images import encode_images, of_one_encoder
from fusecomp.retrieval._exact_index import ExactIndex, measure_lengths
from fusecomp.retrieval._faiss_index import FaissIndex
from fusecomp.retrieval._gallery_file import GalleryFile, read_gallery, write_gallery
from fusecomp.retrieval._hits import Hits, named_hits
from fusecomp.retrieval._named_index import MakeIndex, changing, named, narrow
from fusecomp.retrieval._rerank import rerank
from fusecomp.types import Index, SearchModel, Similarity


class Gallery:
    """Images to search in: their ids, features and attributes, and an index.

    Make one with ``build`` (from a model and images), from features of your own, or with ``load``.

    The features are as the encoder gave them, so ``features_of`` gives the next reference as if
    its file were encoded again; a row of unit length would give another query. An image keeps its
    position for ever: at a position are its row of ``features``, its id in ``image_ids`` and its
    value in each list of ``attributes``. One that is removed leaves a gap, with the id None.

    Args:
        image_ids: N strings, in the order of the rows.
        features: [N, D], a tensor or a NumPy array; kept, not copied where it is writable.
        index: an index of these features; None makes an ``ExactIndex`` that compares by cosine.
        attributes: by name, a list of N values: strings, numbers, bools or None.
        key: names the encoder's state, as ``encoder.fingerprint()`` does; needed to save.

    Raises:
        TypeError: if features are neither tensor nor array, the key is no string, or the index has
            no ``search`` that takes what ``types.Index`` says.
        ValueError: if ids, features and attributes do not fit each other, an id occurs twice, or
            a feature is NaN or infinite.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]])
        >>> colours = {"colour": ["red", "red", "blue"]}
        >>> gallery = Gallery(["a", "b", "c"], features, attributes=colours)
        >>> gallery.search(torch.tensor([[2.0, 0.1]]), k=2)[0].ids
        ['a', 'c']
        >>> gallery.search(torch.tensor([[2.0, 0.1]]), k=2, where={"colour": "red"})[0].ids
        ['a', 'b']
    """

    def __init__(
        self,
        image_ids: Sequence[str],
        features: Array,
        index: Index | None = None,
        *,
        attributes: Mapping[str, Sequence[Value]] | None = None,
        key: str = "",
    ) -> None:
        names, self.attributes = check_images(image_ids, attributes)
        self.features = check_features(as_tensor(features), "features", "[N, D]").detach()
        self._names: list[str | None] = [*names]
        self._rows = {name: row for row, name in enumerate(names)}
        if len(names) != len(features):
            raise ValueError(f"{len(names)} image_ids but {len(features)} rows of features")
        self.index = ExactIndex(self.features) if index is None else check_index(index)
        if isinstance(self.index, Sized) and len(self.index) != len(names):
            raise ValueError(f"the index has {len(self.index)} rows for {len(names)} images")
        self.key = as_text("key", key)
        self._removed: list[int] = []

    @classmethod
    def build(
        cls,
        model: SearchModel,
        image_ids: Sequence[str],
        path: Callable[[str], Path] | None = None,
        *,
        index: MakeIndex = ExactIndex,
        attributes: Mapping[str, Sequence[Value]] | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int = 128,
        key: str | None = None,
    ) -> Self:
        """Encode images, and prepare them for the queries of a model.

        Args:
            model: its encoder makes the features; looked up where it is a ``CachedEncoder``, which
                is the way for large galleries, as building a cache resumes after a kill.
            image_ids: the images, each once.
            path: image id -> path, such as ``dataset.path``; None where features are looked up.
            index: (features, similarity or None) -> an index: ``ExactIndex``, ``FaissIndex`` (such
                as ``functools.partial(FaissIndex, factory=...)``), ``MilvusIndex`` or your own,
                which gets ``image_ids`` and ``attributes`` if it names them.
            attributes: by name, a value for each image.
            dtype: what features are kept as, such as ``torch.float16``; None keeps float32.
            batch_size: images encoded at once.
            key: names the encoder's state; None takes ``encoder.fingerprint()``.

        Raises:
            FileNotFoundError: if images are missing.
            ImageError: if an image cannot be read.
            ValueError: if images can be neither looked up nor loaded, or the index cannot compare
                as the model does; or as ``Gallery``.
        """
        names, columns = check_images(image_ids, attributes)
        about = named(index, image_ids=names, attributes=columns)
        known = known_fingerprint(model.encoder) if key is None else as_text("key", key)
        features = encode_images(model.encoder, names, path, batch_size, dtype)
        made = index(features, model.similarity, **about)
        return cls(names, features, made, attributes=columns, key=known)

    @property
    def image_ids(self) -> Sequence[str | None]:
        """The image at each position; None where it was removed."""
        return self._names

    def __len__(self) -> int:
        """Return the number of images, without those that were removed."""
        return len(self._rows)

    def __contains__(self, image_id: object) -> bool:
        """Return whether an image of this id is there."""
        return image_id in self._rows

    def __repr__(self) -> str:
        kind = f"{self.features.shape[1]} x {str(self.features.dtype).removeprefix('torch.')}"
        named = f", attributes {', '.join(self.attributes)}" if self.attributes else ""
        return f"Gallery({len(self)} images of {kind}, {type(self.index).__name__}{named})"

    def search(
        self,
        query: Array,
        k: int,
        *,
        exclude: Sequence[Sequence[str]] | None = None,
        where: Mapping[str, Value | Collection[Value]] | None = None,
    ) -> list[Hits]:
        """Return the k best images of each query; fewer where fewer are left.

        Args:
            query: [Q, D] or [Q, E], from ``model.encode_query``.
            k: the number of images.
            exclude: for each query, the ids that it must not find; unknown ones are ignored.
            where: by attribute, the value that an image must have, or a collection of values of
                which it must have one. Numbers equal numbers; True is not 1.

        Raises:
            TypeError: if where is no mapping.
            ValueError: if an attribute is unknown or no image has a value of a type that is wanted,
                if exclude has another number of lists than queries, or for any reason of the index.
        """
        query, banned = check_features(as_tensor(query), "query", "[Q, D]"), None
        if exclude is not None:
            given = [strings(f"exclude[{row}]", ids) for row, ids in enumerate(exclude)]
            listed = [self.positions([n for n in ids if n in self._rows]) for ids in given]
            banned = pad_sequence([torch.tensor([-1]), *listed], True, -1)[1:]
        rows = self._rows.values()
        chosen = narrow(self.index, self.attributes, where, rows, len(query))
        scores, found = self.index.search(query, k, exclude=banned, **chosen)
        found = check_indices("the positions that the index found", found, query, self.features)
        return named_hits(self._names, scores, found)

    def rerank(
        self, query: Array, positions: Iterable[Array], similarity: Similarity | None, k: int
    ) -> list[Hits]:
        """Score shortlists exactly, as the function ``rerank`` does, without removed images.

        Args:
            query: [Q, D], or [Q, E] of a similarity.
            positions: int64 [Q, M], or a tensor for each query, such as ``hits.positions`` of a
                search by another index; -1 is padding.
            similarity: such as ``model.similarity``; None for the cosine.
            k: the number of images.

        Raises:
            TypeError: if query or positions are neither tensors nor arrays.
            ValueError: as ``rerank``.
        """
        parts = [check_tensor(as_tensor(part), "positions").reshape(-1) for part in positions]
        shortlist = pad_sequence(parts, True, -1)
        gone = torch.tensor(self._removed, dtype=torch.int64, device=shortlist.device)
        shortlist = shortlist.masked_fill(torch.isin(shortlist, gone), -1)
        return named_hits(self._names, *rerank(query, self.features, shortlist, similarity, k))

    def positions(self, image_ids: Sequence[str]) -> Tensor:
        """Return the positions of images, int64 [M].

        Raises:
            ValueError: naming the first that is not in the gallery, or if they are no list of ids.
        """
        names = strings("image_ids", image_ids)
        for name in names:
            if name not in self._rows:
                raise ValueError(f"the image {name!r} is not in the gallery of {len(self)} images")
        return torch.tensor([self._rows[name] for name in names], dtype=torch.int64)

    def features_of(self, image_ids: Sequence[str]) -> Tensor:
        """Return features [M, D] as the encoder gave them, float32 at least, for ``compose``.

        Raises:
            ValueError: as ``positions``.
        """
        return widen(self.features[self.positions(image_ids).to(self.features.device)])

    def add(
        self,
        image_ids: Sequence[str],
        features: Array,
        attributes: Mapping[str, Sequence[Value]] | None = None,
    ) -> None:
        """Append images; many at once, as an exact index copies all features.

        Args:
            image_ids: M strings that are not in the gallery.
            features: [M, D], as the encoder gave them; kept in the gallery's dtype.
            attributes: a value for each image, of each attribute of the gallery.

        Raises:
            TypeError: if features are neither tensor nor array.
            ValueError: if the index cannot change, or images, features and attributes do not fit
                the gallery.
        """
        index, features = changing(self.index), as_tensor(features)
        names, columns = check_images(image_ids, attributes)
        if columns.keys() != self.attributes.keys():
            raise ValueError(f"attributes are {[*columns]}, the gallery's {[*self.attributes]}")
        for name in (name for name in names if name in self._rows):
            raise ValueError(f"the image {name!r} would be twice in the gallery")
        if len(names) != len(check_features(features, "features", "[M, D]")):
            raise ValueError(f"{len(names)} image_ids but {len(features)} rows of features")
        check_finite(features, "features")
        check_widths(features, self.features, ("features", "the gallery"))
        features = features.detach().to(self.features)
        rows = self._rows | {name: len(self._names) + row for row, name in enumerate(names)}
        values = {name: column + columns[name] for name, column in self.attributes.items()}
        keeps = isinstance(index, ExactIndex | FaissIndex)
        grown = self.features if keeps else torch.cat([self.features, features])
        # An index that is interrupted changes nothing, and after it all that is left is at hand.
        add: Callable[..., None] = index.add
        add(features, **named(add, image_ids=names, attributes=columns))
        self.features = index.features if isinstance(index, ExactIndex | FaissIndex) else grown
        self._rows, self._names, self.attributes = rows, [*self._names, *names], values

    def remove(self, image_ids: Sequence[str]) -> None:
        """Find these images no more; their positions stay empty.

        Raises:
            ValueError: as ``positions``, or if the index cannot change.
        """
        positions = self.positions(list(dict.fromkeys(strings("image_ids", image_ids))))
        changing(self.index).remove(positions)
        self._removed += positions.tolist()
        for position in positions.tolist():
            self._rows.pop(str(self._names[position]), None)
            self._names[position] = None

    def require_model(self, model: SearchModel) -> None:
        """Raise ValueError where the features are known to be those of another encoder."""
        # Reading the key of a large encoder takes long, and without one here says nothing.
        given = known_fingerprint(model.encoder) if self.key else ""
        if given and not of_one_encoder(self.key, given):
            raise ValueError(
                f"this gallery holds features under the key {self.key!r}, but the model's encoder "
                f"is {given!r}, whose queries mean nothing here: build a gallery with it"
            )

    def save(self, path: str | Path) -> None:
        """Write one file in the safetensors layout, atomically.

        It holds the lengths of an ``ExactIndex`` and all of a ``FaissIndex``; nothing of another.

        Raises:
            OSError: if writing fails.
            ValueError: if the gallery has no key, which tells whose features these are.
        """
        if not self.key:
            raise ValueError("this gallery has no key, which names its encoder: set gallery.key")
        index = self.index
        if isinstance(index, ExactIndex | FaissIndex):
            lengths = index.lengths
        else:
            lengths = measure_lengths(self.features)
        faiss = index.serialize() if isinstance(index, FaissIndex) else None
        content = GalleryFile(self._names, self.attributes, self.key, self.features, lengths, faiss)
        write_gallery(as_path("path", path), content)

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: SearchModel | None = None,
        *,
        index: MakeIndex | None = None,
        check: bool = False,
    ) -> Self:
        """Read what ``save`` wrote; the features are mapped into memory, not read.

        Args:
            path: the file.
            model: whose queries will be searched; None compares by cosine, and checks no encoder.
            index: as for ``build``; None makes the one that was saved, if of faiss, or else exact.
            check: verify the checksum of the features too.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the file is torn, changed or no gallery, or of another model.
        """
        path = as_path("path", path)
        similarity = None if model is None else model.similarity
        with reading(path, "gallery", "torn or no gallery", "build and save it again"):
            found = read_gallery(path, check)
            names = ordered("names", found.names, "strings")
            gone = [row for row, name in enumerate(names) if name is None]
            longest = max((len(str(name)) for name in names), default=0) if gone else 0
            for row in gone:
                names[row] = f"{row:0{longest + 1}}"  # which no image is named
            exact = ExactIndex(found.features, similarity, lengths=found.lengths)
            gallery = cls(names, found.features, exact, attributes=found.attributes, key=found.key)
        if index is not None:
            about = named(index, image_ids=found.names, attributes=found.attributes)
            gallery.index = check_index(index(found.features, similarity, **about))
        elif found.faiss is not None:
            parts = found.faiss, found.features, similarity, found.lengths
            gallery.index = FaissIndex.deserialize(*parts)
        if gone:
            gallery.remove([names[row] for row in gone])
        if model is not None:
            gallery.require_model(model)
        return gallery

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.checks import as_path, as_text, require
from fusecomp._core.files import reading
from fusecomp._core.indices import check_query
from fusecomp._core.safetensors import read_safetensors, write_safetensors
from fusecomp._core.tensors import Array, as_tensor
from fusecomp.retrieval._exact_index import ExactIndex
from fusecomp.retrieval._inner_products import (
    Floats,
    check_chosen,
    find_best,
    refuse_similarity,
    unit_array,
)
from fusecomp.retrieval._rerank import rerank
from fusecomp.types import Similarity

_FORMAT = "fusecomp.faiss/1"
# Rows that faiss learns from, evenly taken; values that it gets at once.
_LEARNED, _VALUES = 2**19, 2**24
# By how much equal scores may differ.
_ERROR = 1e-6


class IndexRecall(NamedTuple):
    """Share of the exact best that an index finds, in per cent: over queries, and of the worst."""

    mean: float
    worst: float


class FaissIndex:
    """A gallery searched by an index of faiss (extra ``faiss``): faster than exact, and not exact.

    Rows and queries get unit length, so that its inner products are cosines. What is lost depends
    on the index, its parameters and the queries; ``recall_against_exact`` measures it. A query for
    which it finds fewer than k rows, say as few of the nearest are allowed, is searched exactly.

    Douze et al., The Faiss library, 2024, https://arxiv.org/abs/2401.08281.

    Args:
        features: [N, D], as for ``ExactIndex``; kept, not copied, beside what faiss keeps.
        similarity: None; an index of inner products cannot compare by another one.
        factory: a string of faiss's index factory, such as ``"HNSW32"`` or ``"IVF1024,Flat"``; or
            an index object of faiss, whose rows are the first of the features if it has any.
        parameters: of the search, as faiss writes them, such as ``"efSearch=256"`` or
            ``"nprobe=32,quantizer_efSearch=64"``.
        lengths: as for ``ExactIndex``.

    Raises:
        ImportError: if faiss is missing.
        TypeError: if features are neither tensor nor array, or the factory is neither of these.
        ValueError: if a similarity is given; faiss refuses the factory or the parameters, or makes
            an index of another metric; or for any reason of ``ExactIndex``.

    Example:
        >>> features = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
        >>> index = FaissIndex(features, factory="HNSW16")  # doctest: +SKIP
        >>> index.set_parameters("efSearch=64")  # doctest: +SKIP
        >>> index.recall_against_exact(features[:20] + 0.1)[10].worst  # doctest: +SKIP
        100.0
    """

    def __init__(
        self,
        features: Array,
        similarity: Similarity | None = None,
        *,
        factory: str | Any,
        parameters: str = "",
        lengths: Tensor | None = None,
    ) -> None:
        refuse_similarity("FaissIndex", similarity)
        self.exact = ExactIndex(features, lengths=lengths)
        rows, width = self.features.shape
        with _refused(f"factory={factory!r} for features [{rows}, {width}]"):
            self.index = _make_index(factory, width)
            if self.index.ntotal > rows:
                raise ValueError(f"{self.index.ntotal} rows are indexed, but features have {rows}")
            self.set_parameters(parameters)
            if not self.index.is_trained:
                self.index.train(unit_array(self.features[:: -(-rows // _LEARNED)]))
            _append(self.index, self.features)

    @property
    def features(self) -> Tensor:
        """The features [N, D] as they were given, also of rows that were removed."""
        return self.exact.features

    @property
    def lengths(self) -> Tensor:
        """The lengths of the features, float64 [N]."""
        return self.exact.lengths

    def __len__(self) -> int:
        return len(self.exact)

    def set_parameters(self, parameters: str) -> None:
        """Change what a search costs and finds, such as ``"nprobe=32"``; nothing is built anew.

        Raises:
            ValueError: if this index has no such parameter.
        """
        with _refused(f"parameters={parameters!r}"):
            text = as_text("parameters", parameters)
            _import_faiss().ParameterSpace().set_index_parameters(self.index, text)

    def add(self, features: Array) -> None:
        """Append rows, which get the next positions; what was learned of the first ones stays.

        Copies the features and the index, so that an interruption changes nothing.

        Raises:
            TypeError: if features are neither tensor nor array.
            ValueError: if faiss can add no rows to such an index, as to NSG; or for any reason of
                ``ExactIndex.add``.
        """
        exact = copy(self.exact)
        exact.add(features)
        with _refused("to add rows"):
            index = _import_faiss().clone_index(self.index)
            _append(index, exact.features)
        self.exact, self.index = exact, index

    def remove(self, positions: Array) -> None:
        """Find these rows no more; faiss keeps them, so build a new index after many.

        Raises:
            TypeError: if positions are neither tensor nor array.
            ValueError: if they are not int64 [M] in [0, N).
        """
        self.exact.remove(positions)

    def search(
        self,
        query: Array,
        k: int,
        *,
        exclude: Array | None = None,
        within: Array | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the k best rows that are found for each query; see ``types.Index``.

        Scores are float32, as faiss gives them. It is fast where all queries have the same
        ``within``.
        """
        query = as_tensor(query)
        k = check_query(query, self.features, k, one_width=True)
        chosen = check_chosen(query, self.features, exclude=exclude, within=within)
        scores, found = find_best(self._fetch, query, k, len(self), chosen)
        rows = (found[:, -1] < 0).nonzero().flatten()
        if len(rows):
            some = {name: positions[rows.cpu()] for name, positions in chosen.items()}
            exact, found[rows] = self.exact.search(query[rows], k, **some)
            scores[rows] = exact.float()
        return scores, found

    def _fetch(self, count: int, unit: Floats, within: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what faiss finds; position -1 where that may not be found."""
        allowed = self._allowed(within)
        if allowed is None:
            scores, found = map(torch.from_numpy, self.index.search(unit, count))
            return scores, found
        try:
            parameters = _choosing(self.index, allowed.numpy())
            arrays = self.index.search(unit, count, params=parameters)
        except RuntimeError:  # of an index that cannot choose rows
            arrays = self.index.search(unit, count)
        scores, found = map(torch.from_numpy, arrays)
        return scores, found.masked_fill(~allowed[found.clamp_min(0)], -1)

    def _allowed(self, within: Tensor | None) -> Tensor | None:
        """Return of each row whether it may be found, bool [N]; None if all may."""
        removed = self.exact.removed
        left = None if removed is None else ~removed.cpu()
        if within is None:
            return left
        allowed = torch.zeros(len(self), dtype=torch.bool)
        allowed[within[within >= 0]] = True
        return allowed if left is None else allowed & left

    def recall_against_exact(
        self, query: Tensor, ks: Sequence[int] = (10, 50)
    ) -> dict[int, IndexRecall]:
        """Return, for each k, the share of the exact k best that this index finds.

        Give it queries of your model: composed queries lie off the distribution of the gallery,
        and an index finds less for them than for images. A row counts if its exact score is among
        the k best, so equal rows are not told apart.

        Raises:
            ValueError: as ``search``.
        """
        return {k: self._recall(query, k) for k in ks}

    def _recall(self, query: Tensor, k: int) -> IndexRecall:
        best = self.exact.search(query, k)[0]
        there = best.isfinite()
        least = best.masked_fill(~there, torch.inf).amin(1, keepdim=True) - _ERROR
        found = rerank(query, self.features, self.search(query, k)[1], None, k)[0]
        recall = 100.0 * (found >= least).sum(1).double() / there.sum(1).clamp_min(1)
        return IndexRecall(recall.mean().item(), recall.min().item())

    def serialize(self) -> Tensor:
        """Return the index of faiss, with its parameters, as bytes: uint8 [B]."""
        return torch.from_numpy(_import_faiss().serialize_index(self.index))

    @classmethod
    def deserialize(
        cls, index: Tensor, features: Tensor, similarity: Similarity | None, lengths: Tensor
    ) -> Self:
        """Return the index that gave these bytes, of the same features.

        Raises:
            ValueError: if these bytes are no index, or its width or number of rows does not fit.
        """
        with _refused("the bytes of an index"):
            made = _import_faiss().deserialize_index(index.numpy())
        return cls(features, similarity, factory=made, lengths=lengths)

    def save(self, path: str | Path) -> None:
        """Write the index without the features, atomically; a gallery writes both in one file.

        Raises:
            OSError: if writing fails.
        """
        removed = self.exact.removed
        gone = torch.empty(0).long() if removed is None else removed.nonzero().flatten().cpu()
        tensors = {"index": self.serialize(), "lengths": self.lengths.cpu(), "removed": gone}
        write_safetensors(as_path("path", path), tensors, {"format": _FORMAT})

    @classmethod
    def load(cls, path: str | Path, features: Tensor, similarity: Similarity | None = None) -> Self:
        """Read what ``save`` wrote, for the same features.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the file is torn or no index, or the features are others.
        """
        path = as_path("path", path)
        with reading(path, "index", "torn or no index", "build and save it again"):
            about, tensors, _ = read_safetensors(path)
            if about["format"] != _FORMAT:
                raise ValueError(f"its format is {about['format']!r}, expected {_FORMAT!r}")
        measured = ExactIndex(features).lengths
        known = tensors["lengths"].to(measured.device)
        if known.shape != measured.shape or not torch.allclose(known, measured, rtol=1e-9):
            raise ValueError(f"{path} is an index of other features: build it again")
        made = cls.deserialize(tensors["index"], features, similarity, measured)
        if len(tensors["removed"]):
            made.remove(tensors["removed"])
        return made


def _append(index: Any, features: Tensor) -> None:
    """Add the rows that an index of faiss has not yet."""
    rows = features[index.ntotal :]
    for block in rows.split(_VALUES // rows.shape[1] + 1) if len(rows) else ():
        index.add(unit_array(block))


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('FaissIndex needs faiss: pip install "fusecomp[faiss]"') from error
    return faiss


@contextmanager
def _refused(given: str) -> Iterator[None]:
    """Turn an error of faiss into a ValueError that names the argument."""
    try:
        yield
    except RuntimeError as error:
        # Without the C++ function and file that it begins with.
        reason = re.sub(r"^.* at \S+:\d+: ", "", str(error).strip(), flags=re.DOTALL)
        raise ValueError(f"faiss refuses {given}: {reason}") from error


def _make_index(factory: str | Any, width: int) -> Any:
    """Return an index of inner products; ValueError if this gives another."""
    faiss = _import_faiss()
    metric = faiss.METRIC_INNER_PRODUCT
    if isinstance(factory, str):
        index = faiss.index_factory(width, factory, metric)
    else:
        require("factory", factory, "metric_type", "a string or an index of faiss")
        index = factory
    if (index.d, index.metric_type) != (width, metric):
        raise ValueError(f"{factory!r} is no index of inner products of width {width}")
    return index


def _choosing(index: Any, allowed: NDArray[np.bool_]) -> Any:
    """Return parameters that let an index find these rows alone, and are otherwise its own."""
    faiss = _import_faiss()
    found = faiss.downcast_index(index)
    if isinstance(found, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_choosing(found.index, allowed))
    if isinstance(found, faiss.IndexRefine):
        base = _choosing(found.base_index, allowed)
        return faiss.IndexRefineSearchParameters(k_factor=found.k_factor, base_index_params=base)
    rows = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if isinstance(found, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=rows, efSearch=found.hnsw.efSearch)
    if isinstance(found, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=rows, nprobe=found.nprobe, max_codes=found.max_codes)
    return faiss.SearchParameters(sel=rows)

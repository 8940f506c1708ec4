"""Calls of faiss, and its errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusecomp._core.checks import require


def import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('FaissIndex needs faiss: pip install "fusecomp[faiss]"') from error
    return faiss


@contextmanager
def refused(given: str) -> Iterator[None]:
    """Turn an error of faiss into a ValueError that names the argument."""
    try:
        yield
    except RuntimeError as error:
        # Without the C++ function and file that it begins with.
        reason = re.sub(r"^.* at \S+:\d+: ", "", str(error).strip(), flags=re.DOTALL)
        raise ValueError(f"faiss refuses {given}: {reason}") from error


def make_index(factory: str | Any, width: int) -> Any:
    """Return an index of inner products; ValueError if this gives another."""
    faiss = import_faiss()
    metric = faiss.METRIC_INNER_PRODUCT
    if isinstance(factory, str):
        index = faiss.index_factory(width, factory, metric)
    else:
        require("factory", factory, "metric_type", "a string or an index of faiss")
        index = factory
    if (index.d, index.metric_type) != (width, metric):
        raise ValueError(f"{factory!r} is no index of inner products of width {width}")
    return index


def choosing(index: Any, allowed: NDArray[np.bool_]) -> Any:
    """Return parameters that let an index find these rows alone, and are otherwise its own."""
    faiss = import_faiss()
    found = faiss.downcast_index(index)
    if isinstance(found, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=choosing(found.index, allowed))
    if isinstance(found, faiss.IndexRefine):
        base = choosing(found.base_index, allowed)
        return faiss.IndexRefineSearchParameters(k_factor=found.k_factor, base_index_params=base)
    rows = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if isinstance(found, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=rows, efSearch=found.hnsw.efSearch)
    if isinstance(found, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=rows, nprobe=found.nprobe, max_codes=found.max_codes)
    return faiss.SearchParameters(sel=rows)

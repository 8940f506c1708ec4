from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from fusecomp._core.indices import (
    check_indices,
    check_positions,
    check_query,
    index_pairs,
    one_row,
)
from fusecomp._core.similarity import SMALLEST_NORM, normalize
from fusecomp._core.tensors import Array, as_tensor, check_alike, check_features, check_widths
from fusecomp._core.tiles import compare_in_tiles
from fusecomp.retrieval._top import best_columns, fill_up, sort_best
from fusecomp.types import Similarity

# Queries that are searched together, and their scores at once; features that are widened at once.
_QUERIES, _SCORES, _WIDENED = 1024, 2**23, 2**20
# Queries that a similarity compares at once: it may hold much for each pair.
_COMPARED = 512
# Bytes of the table of what queries may find.
_ALLOWED = 2**26
# Pairs that are scored in float64 at once.
_PAIRS = 128
# So few queries are multiplied one by one.
_SINGLE = 4
# Values that are measured at once.
_MEASURED = 2**15
# Fetched beyond k, so that it shows whether a tie crosses the border; by how much it widens if so.
_MORE, _WIDER = 6, 8
# Scores are computed of lengths times this, so that no product overflows.
_DOWN = 2.0**-16


class ExactIndex:
    """A gallery prepared once: checked, measured, then searched as often as one likes.

    Searching costs the product of queries and features, and the selection of the best. Features
    stay as they are, on their device, also where they are mapped from a file; their lengths are
    kept beside, and scores divided by them.

    Ids and their order do not depend on which queries are searched together: neighbours that are
    closer than the error of the product are scored again in float64, and equal scores are ordered
    by position. That error is taken as 4 sqrt(D) roundings, the statistical bound of Higham and
    Mary (A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 41, 2019).
    Where a ``similarity`` compares, this is up to it; where torch is told to multiply float32 in
    lower precision (TF32), the bound does not hold.

    Args:
        features: [N, D], of float16, bfloat16, float32 or float64, not scaled to unit length;
            kept, not copied.
        similarity: ``similarity(query [Q, E], features [N, D]) -> [Q, N]`` in place of the cosine,
            such as ``model.similarity``; E may differ from D. It is called with up to 512 queries
            and 64 to 1,024 images, where rows may be repeated.
        lengths: float64 [N], the ``lengths`` of an earlier index of the same features; None
            measures them, which reads all features and checks that they are finite.

    Raises:
        TypeError: if features are neither tensor nor array.
        ValueError: if they are not [N, D], empty or not finite, or lengths do not fit them.

    Example:
        >>> index = ExactIndex(torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]]))
        >>> scores, positions = index.search(torch.tensor([[2.0, 0.1]]), k=2)
        >>> positions
        tensor([[0, 2]])
    """

    def __init__(
        self,
        features: Array,
        similarity: Similarity | None = None,
        *,
        lengths: Tensor | None = None,
    ) -> None:
        self.features = check_features(as_tensor(features), "features", "[N, D]").detach()
        self.similarity = similarity
        rows, width = self.features.shape
        self.lengths = measure_lengths(self.features) if lengths is None else lengths
        if self.lengths.shape != (rows,) or self.lengths.dtype != torch.float64:
            kind = f"{self.lengths.dtype} {list(self.lengths.shape)}"
            raise ValueError(f"lengths must be float64 [{rows}], got {kind}")
        # What scores are computed in, and how close two must be for their order to be open.
        self._dtype = torch.promote_types(self.features.dtype, torch.float32)
        roundings = min(width, 4 * width**0.5) + 4
        unit = torch.finfo(self._dtype).eps + torch.finfo(torch.float64).eps
        self._close = roundings * unit if similarity is None else 0.0
        self._factors = _factors(self.lengths, self._dtype)
        # Of each row whether it is removed, once one is.
        self.removed: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    def add(self, features: Array) -> None:
        """Append rows, which get the next positions; copies all features.

        Any number of threads may search an index, but not while rows are added.

        Raises:
            TypeError: if features are neither tensor nor array.
            ValueError: if they are not [M, D], empty or not finite, or of another dtype or device.
        """
        more = check_features(as_tensor(features), "features", "[M, D]").detach()
        check_alike(more, self.features, ("features", "the index"))
        check_widths(more, self.features, ("features", "the index"))
        lengths = torch.cat([self.lengths, measure_lengths(more)])
        factors, removed = _factors(lengths, self._dtype), self.removed
        if removed is not None:
            removed = pad(removed, (0, len(more)))
        # Set at once, so that an interruption changes nothing.
        self.features, self.lengths = torch.cat([self.features, more]), lengths
        self._factors, self.removed = factors, removed

    def remove(self, positions: Array) -> None:
        """Find these rows no more; no other row gets their positions.

        Raises:
            TypeError: if positions are neither tensor nor array.
            ValueError: if they are not int64 [M] in [0, N).
        """
        gone = check_positions(positions, len(self)).to(self.features.device)
        if self.removed is None:
            self.removed = torch.zeros(len(self), dtype=torch.bool, device=gone.device)
        self.removed[gone] = True

    def search(
        self,
        query: Array,
        k: int,
        *,
        exclude: Array | None = None,
        within: Array | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the k best rows of each query; see ``types.Index``.

        Scores are float32, or float64 where features are.

        Raises:
            TypeError: if an argument is neither tensor nor array.
            ValueError: if the query is not finite, does not fit the features or is on another
                device; k is no whole number of at least 1; or positions are not int64 in [-1, N).
        """
        query, cosine = as_tensor(query), self.similarity is None
        k = check_query(query, self.features, k, one_width=cosine)
        size, step = len(self), _QUERIES if cosine else _COMPARED
        if exclude is not None:
            exclude = check_indices("exclude", exclude, query, self.features)
        if within is not None:
            within = one_row(check_indices("within", within, query, self.features))
            step = min(step, max(1, _ALLOWED // size)) if len(within) > 1 else step
        with torch.no_grad():
            found = []
            for rows in _slices(len(query), step):
                some = query[rows].detach()
                # The cosine compares at unit length, and needs it in float64.
                some = normalize(some.double()) if cosine else some.to(self._dtype)
                found.append(self._find(some, k, _of(exclude, rows), _of(within, rows), k + _MORE))
        values, positions = (torch.cat(parts) for parts in zip(*found, strict=True))
        if k <= size and exclude is None and within is None and self.removed is None:
            return values, positions  # all found
        return fill_up(values, positions, k)

    def _find(
        self, query: Tensor, k: int, exclude: Tensor | None, within: Tensor | None, count: int
    ) -> tuple[Tensor, Tensor]:
        """Fetch the best by product, order the close ones, and fetch more where it matters."""
        values, positions = self._fetch(query, count, exclude, within)
        close = values.diff(dim=1) >= -self._close
        if not close.any():
            return values[:, :k], positions[:, :k]
        # Differences of excluded entries are NaN or infinite, and so never close.
        reached = values[:, :k][:, -1:] - values <= self._close
        sides = pad(close, (1, 1))
        near = sides[:, 1:] | sides[:, :-1]
        ordered = self._order(query, values, positions, near & reached)
        values, positions = (part[:, :k] for part in ordered)
        rows = reached[:, -1].nonzero().flatten()
        if len(rows) and reached.shape[1] < len(self):
            some = query[rows], k, _of(exclude, rows), _of(within, rows), _WIDER * count
            values[rows], positions[rows] = self._find(*some)
        return values, positions

    def _order(
        self, query: Tensor, values: Tensor, positions: Tensor, near: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sort anew, with the ``near`` entries scored in float64, and equal ones by position."""
        exact = values.double()
        if self.similarity is None:
            row, column = near.nonzero(as_tuple=True)
            exact[row, column] = self._cosines(query, row, positions[row, column])
            exact, order = exact.sort(dim=1, descending=True)
            positions = positions.gather(1, order)
        if (exact[:, :-1] == exact[:, 1:]).any():
            exact, positions = sort_best(exact, positions)
        return exact.to(values.dtype), positions

    def _cosines(self, query: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """Return the cosines of pairs in float64; each depends on its pair alone."""
        products = [
            self.features[columns].double().mul_(query[some]).sum(1)
            for some, columns in zip(rows.split(_PAIRS), positions.split(_PAIRS), strict=True)
        ]
        return torch.cat(products) * _reciprocal(self.lengths[positions], SMALLEST_NORM)

    def _fetch(
        self, query: Tensor, count: int, exclude: Tensor | None, within: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the ``count`` best by product, sorted by value alone."""
        size = len(self)
        if self.similarity is None:
            query = (query * _DOWN).to(self._dtype)
        allowed = None
        if within is not None:
            row, position = index_pairs(within)
            allowed = torch.zeros(len(within), size, dtype=torch.bool, device=query.device)
            allowed[row, position] = True
        banned = None if exclude is None else index_pairs(exclude)
        step = min(size, max(1, _SCORES // len(query)))
        room = query.new_empty(len(query), step)
        best: list[tuple[Tensor, Tensor]] = []
        for columns in _slices(size, step):
            scores = self._score(query, columns, room)
            if self.removed is not None:
                scores.masked_fill_(self.removed[columns], -torch.inf)
            if allowed is not None:
                scores.masked_fill_(~allowed[:, columns], -torch.inf)
            if banned is not None:
                row, position = banned
                inside = (position >= columns.start) & (position < columns.stop)
                scores[row[inside], position[inside] - columns.start] = -torch.inf
            values, found = best_columns(scores, count)
            best.append((values, found + columns.start if columns.start else found))
        if len(best) == 1:
            return best[0]
        values, positions = (torch.cat(parts, 1) for parts in zip(*best, strict=True))
        values, found = best_columns(values, count)
        return values, positions.gather(1, found)

    def _score(self, query: Tensor, columns: slice, room: Tensor) -> Tensor:
        """Return the scores [Q, N'] of some columns, written into the room where it can be."""
        features = self.features[columns]
        if self.similarity is not None:
            return compare_in_tiles(query, features, self.similarity)
        scores = room[:, : len(features)]
        step = len(features) if features.dtype == query.dtype else _WIDENED // features.shape[1] + 1
        for some in _slices(len(features), step):
            _multiply(query, features[some].to(query.dtype), scores[:, some])
        return scores.mul_(self._factors[columns])


def _slices(size: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _of(positions: Tensor | None, rows: slice | Tensor) -> Tensor | None:
    """Return the positions of some queries; one row is that of all."""
    return positions if positions is None or len(positions) == 1 else positions[rows]


def _multiply(query: Tensor, features: Tensor, out: Tensor) -> None:
    """Write query @ features.T."""
    # MKL, torch's library for products, is slower than NumPy's on some processors.
    if features.device.type == "cpu" and torch.get_num_threads() == 1:
        rows, columns, products = query.numpy(), features.numpy(), out.numpy()
        if len(query) > _SINGLE:
            np.matmul(rows, columns.T, out=products)
        else:
            for row, scores in zip(rows, products, strict=True):
                np.matmul(columns, row, out=scores)
        return
    with torch.autocast(query.device.type, enabled=False):
        if len(query) > _SINGLE:
            torch.mm(query, features.T, out=out)
        else:
            for one, found in zip(query, out, strict=True):
                torch.mv(features, one, out=found)


def measure_lengths(features: Tensor, numbers: Tensor | None = None) -> Tensor:
    """Return the lengths of all rows; ValueError names the first that is not finite.

    ``numbers`` are those of the rows where they are chosen from others.
    """
    found = torch.empty(len(features), dtype=torch.float64, device=features.device)
    for some in _slices(len(features), _MEASURED // features.shape[1] + 1):
        torch.linalg.vector_norm(features[some], dim=1, dtype=torch.float64, out=found[some])
    wrong = (~found.isfinite()).nonzero().flatten()[:1]
    for row in (wrong if numbers is None else numbers[wrong]).tolist():
        raise ValueError(f"features row {row} holds NaN or infinity, or is too long to be measured")
    return found


def _factors(lengths: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what products with queries of the length ``_DOWN`` are multiplied by."""
    return _reciprocal(lengths * _DOWN, SMALLEST_NORM * _DOWN).to(dtype)


def _reciprocal(lengths: Tensor, least: float) -> Tensor:
    """Return 1 / length; 0 for rows that have no direction to speak of."""
    return lengths.reciprocal().masked_fill_(lengths <= least, 0.0)

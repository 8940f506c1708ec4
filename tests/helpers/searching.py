"""Search problems full of ties, and the answer in loops."""

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

WIDTH = 5
# Rows of length 0, 1 or 2 in whole numbers: their cosines are exact, so ties are true ties.
ROWS = st.sampled_from(
    [(0,) * WIDTH]
    + [tuple(sign * (i == j) for j in range(WIDTH)) for i in range(WIDTH) for sign in (1, -1)]
    + [
        tuple(0 if j == gap else (-1 if j in minus else 1) for j in range(WIDTH))
        for gap in range(WIDTH)
        for minus in ((), (0,), (1, 3))
    ]
)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Queries and a gallery full of ties, with indices to exclude and to choose from."""
    gallery = draw(st.lists(ROWS, min_size=1, max_size=12))
    query = draw(st.lists(ROWS, min_size=1, max_size=6))

    def some_indices() -> Tensor | None:
        shape = draw(st.sampled_from([None, (len(query),), (len(query), 3), (len(query), 0)]))
        if shape is None:
            return None
        size = int(np.prod(shape))
        index = st.integers(-1, len(gallery) - 1)
        numbers = draw(st.lists(index, min_size=size, max_size=size))
        return torch.tensor(numbers, dtype=torch.int64).reshape(shape)

    return {
        "query": torch.tensor(query, dtype=torch.float32) * draw(st.sampled_from([0.5, 1, 4])),
        "gallery": torch.tensor(gallery, dtype=torch.float32),
        "k": draw(st.integers(1, 15)),
        "exclude": some_indices(),
        "candidates": some_indices(),
    }


def in_loops(
    query: Tensor, gallery: Tensor, k: int, exclude: Tensor | None, candidates: Tensor | None
) -> tuple[list[list[float]], list[list[int]]]:
    all_scores, all_indices = [], []
    for row, q in enumerate(query.double().numpy()):
        found = []
        for index, g in enumerate(gallery.double().numpy()):
            if exclude is not None and index in exclude[row].reshape(-1).tolist():
                continue
            if candidates is not None and index not in candidates[row].reshape(-1).tolist():
                continue
            length = (q @ q) ** 0.5 * (g @ g) ** 0.5
            found.append((float(q @ g / length) if length else 0.0, index))
        found.sort(key=lambda pair: (-pair[0], pair[1]))
        found = (found + [(-np.inf, -1)] * k)[:k]
        all_scores.append([score for score, _ in found])
        all_indices.append([index for _, index in found])
    return all_scores, all_indices

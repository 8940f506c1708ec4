from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusecomp._core.checks import number, ordered
from fusecomp._core.similarity import SMALLEST_NORM, normalize
from fusecomp._core.tensors import (
    Array,
    as_tensor,
    check_alike,
    check_features,
    check_finite,
    check_widths,
    widen,
)


def compose_parts(
    images: Array | None = None,
    texts: Array | None = None,
    weights: Sequence[float] | Array | None = None,
) -> Tensor:
    """Add several images and texts up to one query, also negative ones ("not this").

    With the rows x_1 ... x_P, images first, and unit(x) = x / |x|::

        query = unit(sum over i of weight_i unit(x_i))

    So a part counts by its direction and weight, not by the length that its encoder gave it. An
    image or a text alone gives the image-only or text-only search of a two-tower encoder
    (Radford et al., Learning transferable visual models from natural language supervision, 2021);
    negative weights act as the term for non-relevant documents of Rocchio (Relevance feedback in
    information retrieval, 1971). A fusion takes one image and one text: compose each such pair by
    the model, and pass its query as a row of ``images``, since queries lie in the images' space.

    Args:
        images: [N, D], image features, or queries of ``encode_query``; a tensor or a NumPy array.
        texts: [M, D], text features of an encoder whose images and texts share a space.
        weights: N + M finite numbers, those of the images first; None is 1 for each. A part of
            weight 0 does not count.

    Shape:
        [1, D], of unit length.

    Raises:
        TypeError: if features are neither tensors nor arrays.
        ValueError: if there is no part, images and texts do not fit each other, a feature or
            weight is NaN or infinite, the number of weights differs, or the parts cancel out.

    Example:
        >>> images = torch.tensor([[3.0, 0.0], [0.0, 5.0]])
        >>> compose_parts(images, torch.tensor([[0.0, 2.0]]), weights=[3.0, -1.0, 5.0])
        tensor([[0.6000, 0.8000]])
    """
    rows = _joined({"images": images, "texts": texts})
    if weights is None:
        weights = [1.0] * len(rows)
    listed = weights.tolist() if isinstance(weights, Tensor) else weights
    values = [
        number(f"weights[{place}]", value)
        for place, value in enumerate(ordered("weights", listed, "numbers"))
    ]
    if len(values) != len(rows):
        raise ValueError(f"{len(values)} weights for {len(rows)} parts: give one for each")
    largest = max(map(abs, values))
    shares = [value / largest if largest else 0.0 for value in values]
    total = rows.new_tensor(shares).unsqueeze(0) @ normalize(rows)
    if not total.norm() > SMALLEST_NORM * sum(map(abs, shares)):
        raise ValueError(
            f"the parts cancel out: their sum with the weights {values} is zero and points "
            "nowhere; change a weight, or leave a part out"
        )
    return normalize(total)


def _joined(given: Mapping[str, Array | None]) -> Tensor:
    """Return all rows, checked, in float32 at least."""
    parts = []
    for name, rows in given.items():
        if rows is not None:
            parts.append(check_features(as_tensor(rows), name, "[rows, D]"))
            check_finite(parts[-1], name)
    if not parts:
        raise ValueError("a query needs a part: pass images or texts")
    check_alike(parts[0], parts[-1], ("images", "texts"))
    check_widths(parts[0], parts[-1], ("images", "texts"))
    return widen(torch.cat(parts).detach())

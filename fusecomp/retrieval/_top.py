"""The best columns of each row of scores."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

# Rows of fewer columns than this multiple of what is asked are searched at once; in others, one of
# so many columns is looked for.
_FEW, _GROUP = 8, 4
# Scores that torch searches at once as fast.
_SMALL = 2**14


def best_columns(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return values and columns of the ``count`` highest scores of each row, sorted by value."""
    if scores.numel() <= _SMALL:
        return scores.topk(min(count, scores.shape[1]), dim=1)
    columns = _best(scores, min(count, scores.shape[1]))
    values, order = scores.gather(1, columns).sort(dim=1, descending=True)
    return values, columns.gather(1, order)


def _best(scores: Tensor, count: int) -> Tensor:
    """Return the best columns in no order: only the groups with the highest maxima hold them."""
    size = scores.shape[1]
    if size <= _FEW * count:
        if scores.device.type != "cpu":
            return scores.topk(count, dim=1, sorted=False).indices
        # Several times as fast, where rows are short.
        return torch.from_numpy(np.argpartition(scores.numpy(), -count, axis=1)[:, -count:])
    width = size // _GROUP
    maxima = scores[:, : width * _GROUP].unflatten(1, (_GROUP, width)).amax(1)
    first = torch.arange(0, width * _GROUP, width, device=scores.device)
    columns = (_best(maxima, count).unsqueeze(2) + first).flatten(1)
    if left := size - width * _GROUP:
        rest = torch.arange(size - left, size, device=scores.device).expand(len(scores), left)
        columns = torch.cat([columns, rest], dim=1)
    return columns.gather(1, _best(scores.gather(1, columns), count))


def sort_best(values: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each row by value, equal values by column."""
    columns, by_column = columns.sort(dim=1)
    values, by_value = values.gather(1, by_column).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, by_value)


def fill_up(values: Tensor, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the first k of each row, -inf beyond; the column of what is -inf is -1."""
    missing = 0, max(0, k - values.shape[1])
    values = pad(values[:, :k], missing, value=-torch.inf)
    return values, pad(columns[:, :k], missing).masked_fill(values == -torch.inf, -1)

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusecomp.similarity import non_finite_rows, widen

__all__ = ["FeatureTable"]

# What was probably meant where names and features are confused.
_ORDER = "from_arrays takes image_ids, images, texts, text_features"


class FeatureTable(nn.Module):
    """Features [N, D] with a name for each row.

    ``skipped`` says of further names why they have no features.
    """

    features: Tensor

    def __init__(
        self,
        side: str,
        names: Sequence[str],
        features: NDArray[Any] | Tensor,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        kinds = {type(name).__name__ for name in names if not isinstance(name, str)}
        if kinds or isinstance(names, str):
            found = f"{type(names).__name__} of {', '.join(sorted(kinds)) or 'str'}"
            raise TypeError(f"{side} names must be a list of strings, got {found}; {_ORDER}")
        try:
            features = torch.as_tensor(features)
        except (TypeError, ValueError, RuntimeError) as error:
            found = type(features).__name__
            raise TypeError(f"{side} features must be an array, got {found}; {_ORDER}") from error
        if features.ndim != 2 or features.numel() == 0 or not features.is_floating_point():
            raise ValueError(
                f"{side} features must be floating [N, D] and not empty, "
                f"got {features.dtype} {list(features.shape)}"
            )
        if len(names) != len(features):
            raise ValueError(f"{len(names)} {side} names but {len(features)} rows of features")
        self.side = side
        self.skipped = dict(skipped or {})
        self.rows = {name: row for row, name in enumerate(names)}
        if len(self.rows) != len(names):
            twice = next(name for row, name in enumerate(names) if self.rows[name] != row)
            raise ValueError(f"the {side} {twice!r} occurs twice")
        for row in non_finite_rows(features)[:1]:
            raise ValueError(f"the features of {side} {names[row]!r} hold NaN or infinity")
        # Not persistent: a model's checkpoint holds weights, not features.
        self.register_buffer("features", features, persistent=False)

    def extra_repr(self) -> str:
        """Size and kind."""
        rows, width = self.features.shape
        return f"{rows} x {width}, {self.features.dtype}"

    def find(self, names: Sequence[str]) -> Tensor:
        """Row numbers, int64 [B].

        Raises:
            ValueError: naming the first unknown one.
        """
        try:
            # Several times as fast as torch.tensor of a list.
            rows = np.fromiter(map(self.rows.__getitem__, names), np.int64, len(names))
            return torch.from_numpy(rows)
        except KeyError as error:
            raise ValueError(self._why_not(error.args[0])) from None

    def _why_not(self, name: str) -> str:
        if name in self.skipped:
            return (
                f"the {self.side} {name!r} was skipped when the features were computed: "
                f"{self.skipped[name]}. data.without(dataset, encoder.skipped) leaves out what "
                "needs it"
            )
        return (
            f"no cached features for the {self.side} {name!r} "
            f"(of {len(self.rows)} cached); build the cache from every dataset you use"
        )

    def forward(self, rows: Tensor | Sequence[str]) -> Tensor:
        """Features [B, D], float32 at least, of row numbers or names."""
        if not isinstance(rows, Tensor):
            rows = self.find(rows).to(self.features.device)
        return widen(self.features.index_select(0, rows))

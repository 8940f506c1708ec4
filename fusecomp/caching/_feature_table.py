from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusecomp._core.checks import can_be_listed, ordered, shown, strings
from fusecomp._core.foreign import optional
from fusecomp._core.task import repeated
from fusecomp._core.tensors import (
    FLOATING,
    as_tensor,
    check_tensor,
    check_values,
    non_finite_rows,
    widen,
)
from fusecomp.caching._token_table import TokenTable
from fusecomp.types import Tokens

# What was probably meant where names and features are confused.
_ORDER = "from_arrays takes image_ids, image_features, texts, text_features"


class FeatureTable(nn.Module):
    """Features [N, D] with a name for each row.

    ``skipped`` says of further names why they have no features; ``tokens`` are those of each row.
    """

    features: Tensor

    def __init__(
        self,
        side: str,
        names: Sequence[str],
        features: NDArray[Any] | Tensor,
        skipped: Mapping[str, str] | None = None,
        tokens: TokenTable | None = None,
    ) -> None:
        super().__init__()
        try:
            names = strings(f"{side} names", names)
        except ValueError as error:
            raise TypeError(f"{error}; {_ORDER}") from None
        features = _tensor(f"{side} features", features)
        if features.ndim != 2 or features.numel() == 0 or features.dtype not in FLOATING:
            raise ValueError(
                f"{side} features must be floating [N, D] of 16 bits at least and not empty, "
                f"got {features.dtype} {list(features.shape)}"
            )
        check_values(features, f"{side} features")
        if len(names) != len(features):
            raise ValueError(f"{len(names)} {side} names but {len(features)} rows of features")
        if tokens is not None and len(tokens) != len(features):
            raise ValueError(f"{len(names)} {side} names but {len(tokens)} rows of tokens")
        self.tokens = tokens
        self.side = side
        self.skipped = dict(skipped or {})
        self.rows = {name: row for row, name in enumerate(names)}
        if len(self.rows) < len(names):
            raise ValueError(f"the {side} {repeated(names)[0]!r} occurs twice")
        # Not persistent: a model's checkpoint holds weights, not features.
        self.register_buffer("features", features, persistent=False)

    def extra_repr(self) -> str:
        """Size and kind."""
        rows, width = self.features.shape
        return f"{rows} x {width}, {self.features.dtype}"

    def require_finite(self) -> None:
        """Raise ValueError that names the first row with NaN or infinity; reads all values."""
        for row in non_finite_rows(self.features)[:1]:
            self._refuse("features", row)
        if self.tokens is not None:
            for token in non_finite_rows(self.tokens.values)[:1]:
                self._refuse("tokens", int((self.tokens.offsets[1:] <= token).sum()))

    def _refuse(self, kind: str, row: int) -> NoReturn:
        name = list(self.rows)[row]
        raise ValueError(f"the {kind} of {self.side} {name!r} hold NaN or infinity")

    def find(self, names: Sequence[str]) -> Tensor:
        """Return row numbers, int64 [B].

        Raises:
            ValueError: naming the first unknown one, or if these are no list of strings.
        """
        if not can_be_listed(names):
            ordered(f"{self.side} names", names, "strings")
        try:
            # Several times as fast as torch.tensor of a list.
            rows = np.fromiter(map(self.rows.__getitem__, names), np.int64, len(names))
            return torch.from_numpy(rows)
        except KeyError as error:
            name = error.args[0]
        except TypeError:  # a name that cannot be looked up at all
            strings(f"{self.side} names", names)
            raise
        if name in self.skipped:
            raise ValueError(
                f"the {self.side} {name!r} was skipped when the features were computed: "
                f"{self.skipped[name]}. datasets.drop_images(dataset, encoder.skipped) leaves out "
                "what needs it"
            )
        raise ValueError(
            f"no cached features for the {self.side} {name!r} "
            f"(of {len(self.rows)} cached); build the cache from every dataset you use"
        )

    def forward(self, rows: Tensor | Sequence[str]) -> Tensor:
        """Return features [B, D], float32 at least, of row numbers or names.

        Raises:
            ValueError: on an unknown name, and, on the CPU, on a row number that is none.
        """
        if not isinstance(rows, Tensor):
            rows = self.find(rows)
        if rows.ndim != 1 or rows.dtype != torch.int64:
            raise ValueError(
                f"{self.side} rows must be int64 [B], got {rows.dtype} {list(rows.shape)}"
            )
        try:
            return widen(self.features.index_select(0, rows.to(self.features.device)))
        except IndexError:  # a GPU is not asked, as it would have to be waited for
            raise ValueError(
                f"{self.side} rows must lie in [0, {len(self.features)}), got "
                f"{int(rows.min())} to {int(rows.max())}"
            ) from None

    def with_tokens(self, rows: Tensor | Sequence[str]) -> tuple[Tensor, Tokens]:
        """Return features [B, D], and tokens in the dtype that they are kept in.

        Raises:
            ValueError: as the features alone, or if no tokens are kept.
        """
        if self.tokens is None:
            raise ValueError(f'no {self.side} tokens are kept: build with tokens=["{self.side}"]')
        rows = rows if isinstance(rows, Tensor) else self.find(rows)
        features: Tensor = self(rows)
        return features, self.tokens(rows.to(features.device))


def _tensor(name: str, features: Any) -> Tensor:
    """Return the features as a tensor without a graph, sharing writable memory."""
    if isinstance(features, np.ma.MaskedArray):
        raise ValueError(f"{name} are a masked array, whose gaps would count: fill or drop them")
    try:
        if optional(features, "__array__") is not None and not isinstance(features, Tensor):
            features = np.asarray(features)
            if features.dtype == object:  # as a DataFrame's column of vectors
                features = features.tolist()
        if isinstance(features, list | tuple) and features:
            if all(isinstance(row, Tensor) for row in features):
                features = torch.stack(tuple(features))
            elif all(isinstance(row, np.ndarray) for row in features):
                features = np.stack(features)
        features = as_tensor(features)
        tensor = torch.as_tensor(features)
    except (TypeError, ValueError, RuntimeError):
        kind = f" of {features.dtype}" if isinstance(features, np.ndarray) else ""
        raise TypeError(
            f"{name} must be an array of numbers [N, D], got {type(features).__name__}{kind} "
            f"{shown(features)}; {_ORDER}"
        ) from None
    check_tensor(tensor, name)
    return tensor.detach()

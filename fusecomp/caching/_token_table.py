import torch
from torch import Tensor, nn

from fusecomp._core.tensors import FLOATING, check_values
from fusecomp.types import Tokens


class TokenTable(nn.Module):
    """Tokens of N texts or images, one row after another, without their padding.

    ``values`` are [S + 1, W]; the last row is zeros, which padding is read from. ``offsets`` int64
    [N + 1] say where each row begins, and where the last one ends.
    """

    values: Tensor
    offsets: Tensor

    def __init__(self, values: Tensor, offsets: Tensor) -> None:
        super().__init__()
        if values.ndim != 2 or values.shape[1] == 0 or values.dtype not in FLOATING:
            raise ValueError(
                f"tokens must be floating [S, W] of 16 bits at least and not empty, got "
                f"{values.dtype} {list(values.shape)}"
            )
        check_values(values, "tokens")
        fits = offsets.dtype == torch.int64 and offsets.ndim == 1 and len(offsets) > 1
        ends = (0, len(values) - 1)
        if not fits or (int(offsets[0]), int(offsets[-1])) != ends or (offsets.diff() < 1).any():
            raise ValueError(f"token offsets must rise from 0 to {len(values) - 1}, a step a row")
        if values[-1].any():
            raise ValueError("tokens do not end with zeros")
        # Not persistent: a model's checkpoint holds weights, not features.
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)

    @classmethod
    def of_rows(cls, values: Tensor, lengths: Tensor) -> "TokenTable":
        """Make a table of the tokens [S, W] of all rows and the number [N] that each has."""
        padding = values.new_zeros(1, values.shape[1])
        return cls(torch.cat((values, padding)), nn.functional.pad(lengths.cumsum(0), (1, 0)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def extra_repr(self) -> str:
        """Size and kind."""
        tokens, width = self.values.shape
        return f"{len(self)} rows, {tokens - 1} x {width}, {self.values.dtype}"

    def forward(self, rows: Tensor) -> Tokens:
        """Return tokens of row numbers int64 [B], in the dtype that they are kept in."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        positions = torch.arange(int(lengths.max()), device=rows.device)
        mask = positions < lengths.unsqueeze(1)
        indices = (starts.unsqueeze(1) + positions).masked_fill(~mask, len(self.values) - 1)
        values = self.values.index_select(0, indices.flatten())
        return Tokens(values.view(*mask.shape, -1), mask)

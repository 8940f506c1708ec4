from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fusecomp._core.tensors import check_floating, check_tensor, rows_of


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Features of the tokens of B texts or images, padded to one length.

    Args:
        values: [B, L, W], floating; what masked positions hold means nothing.
        mask: bool [B, L], True where there is a token; one at least in every row. Whether there is
            one is looked at on a CPU alone, as any other device would have to be waited for.

    Raises:
        TypeError: if values or mask are no torch tensors.
        ValueError: if they are no such tensors, are empty or on two devices, or a row has no
            token.

    Example:
        >>> from fusecomp.types import Tokens
        >>> mask = torch.tensor([[True, True, False], [True, True, True]])
        >>> Tokens(torch.zeros(2, 3, 8), mask)
        Tokens(values [2, 3, 8], 5 of 6 positions used)
    """

    values: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        values, mask = check_floating(self.values, "values"), check_tensor(self.mask, "mask")
        shape = list(values.shape)
        if values.ndim != 3 or 0 in shape:
            raise ValueError(f"values must be [B, L, W] and not empty, got {shape}")
        if mask.dtype != torch.bool or list(mask.shape) != shape[:2]:
            raise ValueError(
                f"mask must be bool {shape[:2]}, as values are {shape}, got {mask.dtype} "
                f"{list(mask.shape)}"
            )
        if mask.device != values.device:
            raise ValueError(
                f"values are on {values.device} and mask is on {mask.device}: move both to one"
            )
        if mask.device.type == "cpu":
            for row in (~mask.any(dim=1)).nonzero()[:1].flatten().tolist():
                raise ValueError(f"mask row {row} has no token, but every row needs one at least")
            for row in (mask[:, 1:] > mask[:, :-1]).any(dim=1).nonzero()[:1].flatten().tolist():
                raise ValueError(
                    f"mask row {row} has padding before or between its tokens: put it last, as "
                    "Tokens.unpack(values[mask], mask.sum(dim=1)) does"
                )

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        used = f"{int(self.mask.sum()):,} of {self.mask.numel():,} positions used"
        return f"Tokens(values {list(self.values.shape)}, {used})"

    @classmethod
    def unpack(cls, values: Tensor, lengths: Tensor) -> "Tokens":
        """Pad the tokens [S, W] of B rows, one after another, to the longest of lengths [B]."""
        positions = torch.arange(int(lengths.max()), device=lengths.device)
        mask = positions < lengths.unsqueeze(1)
        padded = values.new_zeros(*mask.shape, values.shape[1])
        return cls(padded.index_put((mask,), values), mask)

    def pack(self) -> tuple[Tensor, Tensor]:
        """Return the unmasked tokens [S, W], one after another, and how many each row has [B]."""
        return self.values[self.mask], self.mask.sum(dim=1)

    def join(self, counts: Tensor) -> "Tokens":
        """Put the tokens of several texts of a row one after another; counts int64 [rows]."""
        if len(counts) == len(self):
            return self
        counts = counts.to(self.mask.device)
        values, lengths = self.pack()
        return Tokens.unpack(
            values, torch.zeros_like(counts).index_add(0, rows_of(counts), lengths)
        )

    @staticmethod
    def cat(pieces: "Sequence[Tokens]") -> "Tokens":
        """Put the rows of some tokens one after another, padded to the longest."""
        return Tokens(
            cat_padded([piece.values for piece in pieces]),
            cat_padded([piece.mask for piece in pieces]),
        )


def cat_padded(pieces: Sequence[Tensor]) -> Tensor:
    """Put rows [B, L, ...] one after another, padded with zeros to the longest."""
    longest = max(piece.shape[1] for piece in pieces)
    if any(piece.shape[1] < longest for piece in pieces):
        # Pairs of paddings, from the last axis on.
        pieces = [F.pad(p, (*[0, 0] * (p.ndim - 2), 0, longest - p.shape[1])) for p in pieces]
    return torch.cat(list(pieces))

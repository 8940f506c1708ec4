from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from torch import Tensor, nn

from fusecomp.encoders._features import SIDES, FeatureTable, compute_table
from fusecomp.protocols import Dataset, Encoder

__all__ = ["PartlyCachedEncoder"]


class PartlyCachedEncoder(nn.Module):
    """An encoder of which some sides are looked up and the others stay live.

    It serves a stage that tunes one side only: the pictures' features are computed once while
    the text side learns. It shares the weights of the encoder behind it.

    Args:
        encoder: the live encoder.
        tables: the features of the cached sides, by ``"image"`` or ``"text"``.
    """

    def __init__(self, encoder: Encoder, tables: Mapping[str, FeatureTable]) -> None:
        super().__init__()
        self.encoder = encoder
        self.tables = nn.ModuleDict(tables)

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        *datasets: Dataset,
        sides: Sequence[str],
        batch_size: int = 128,
        workers: int | None = None,
    ) -> Self:
        """Compute the features of some sides (``"image"``, ``"text"``) of the datasets, once."""
        if unknown := set(sides) - set(SIDES):
            raise ValueError(f"unknown sides {sorted(unknown)}; valid: {', '.join(SIDES)}")
        tables = {s: compute_table(encoder, datasets, s, batch_size, workers) for s in sides}
        return cls(encoder, tables)

    @property
    def lookup(self) -> Mapping[str, Callable[[Sequence[str]], Tensor]]:
        """For each cached side, the function from names to row numbers int64 [B]."""
        behind: Mapping[str, Callable[[Sequence[str]], Tensor]]
        behind = getattr(self.encoder, "lookup", {})
        return {**behind, **{side: table.find for side, table in self.tables.items()}}

    @property
    def load(self) -> Any:
        """Opens pictures, where the picture side is live."""
        return getattr(self.encoder, "load", None)

    def encode_image(self, images: Any) -> Tensor:
        """Features [B, D] of row numbers or ids if cached, else of loaded pictures."""
        return self._encode("image", images)

    def encode_text(self, texts: Any) -> Tensor:
        """Features [B, D] of row numbers if cached, else of strings."""
        return self._encode("text", texts)

    def _encode(self, side: str, inputs: Any) -> Tensor:
        encode: Callable[[Any], Tensor] = (
            self.tables[side] if side in self.tables else getattr(self.encoder, f"encode_{side}")
        )
        return encode(inputs)

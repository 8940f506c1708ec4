from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from torch import Tensor, nn

from fusecomp._core.abilities import (
    encode_function,
    heads_of,
    image_loader,
    lookups_of,
    token_function,
    token_sides,
)
from fusecomp._core.checks import shown, strings
from fusecomp._core.devices import inference
from fusecomp.caching._extraction import Extraction, compute_table
from fusecomp.caching._feature_table import FeatureTable
from fusecomp.distributed import is_sharded, join
from fusecomp.types import SIDES, Dataset, Encoder, Find, LoadImage, Tokens


class PartlyCachedEncoder(nn.Module):
    """An encoder of which some sides are looked up and the others stay live.

    It serves a stage that tunes one side only: the images' features are computed once while the
    text side learns. It shares the weights of its encoder.

    Args:
        encoder: the live encoder.
        tables: the features of the cached sides, by ``"image"`` or ``"text"``.
        heads: learning heads of cached sides, whose tables hold the features below them.
    """

    def __init__(
        self,
        encoder: Encoder,
        tables: Mapping[str, FeatureTable],
        heads: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.tables = nn.ModuleDict(tables)
        self._find = {side: table.find for side, table in tables.items()}
        self._with_tokens = {side: table.with_tokens for side, table in tables.items()}
        self.heads = nn.ModuleDict(heads)

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        *datasets: Dataset,
        sides: Sequence[str],
        batch_size: int = 128,
        num_workers: int | None = None,
        tokens: Sequence[str] = (),
        known: Mapping[str, FeatureTable] = MappingProxyType({}),
    ) -> Self:
        """Compute the features of some sides (``"image"``, ``"text"``) of the datasets, once.

        Where a side has a head that learns, the features below it are computed. ``tokens`` are
        the sides whose tokens are kept too, in the encoder's dtype. ``known`` are tables of the
        same weights, by side: what they have is not computed again.

        Raises:
            TypeError: if ``known`` is something else.
            ValueError: on an unknown side, if a feature is NaN or infinite, or if a head is
                sharded.
            FileNotFoundError: if images are missing.
            ImageError: if one cannot be read.
        """
        sides = strings("sides", sides)
        if unknown := set(sides) - set(SIDES):
            raise ValueError(f"unknown sides {sorted(unknown)}; valid: {', '.join(SIDES)}")
        _require_tables(known)
        heads = {
            side: head
            for side, head in heads_of(encoder).items()
            if side in sides and any(p.requires_grad for p in head.parameters())
        }
        for side, head in heads.items():
            if any(map(is_sharded, head.parameters())):
                raise ValueError(
                    f"FSDP2 has sharded the {side} side's head with its encoder, so that it cannot "
                    "be called alone: switch caching off (StageConfig(cache=False))"
                )
        extraction = Extraction(batch_size, num_workers, tokens=tokens)
        join()
        with inference(encoder):  # all sides of the same weights, during a training too
            tables = {
                side: compute_table(
                    encoder,
                    datasets,
                    side,
                    extraction,
                    below_head=side in heads,
                    known=None if side in heads else known.get(side),
                )
                for side in sides
            }
        return cls(encoder, tables, heads)

    @property
    def lookup(self) -> Mapping[str, Find]:
        """For each cached side, the function from names to row numbers int64 [B]."""
        return {**lookups_of(self.encoder), **self._find}

    @property
    def load_image(self) -> LoadImage | None:
        """Opens images, where the image side is live."""
        return image_loader(self.encoder)

    def encode_image(self, images: Any) -> Tensor:
        """Return features [B, D] of row numbers or ids if cached, else of loaded images."""
        return self._encode("image", images)

    def encode_text(self, texts: Any) -> Tensor:
        """Return features [B, D] of row numbers if cached, else of strings."""
        return self._encode("text", texts)

    @property
    def token_sides(self) -> list[str]:
        """The sides that have tokens, cached or live."""
        live = token_sides(self.encoder)
        cached = {side: table.tokens is not None for side, table in self.tables.items()}
        return [side for side in SIDES if cached.get(side, side in live)]

    def encode_image_tokens(self, images: Any) -> tuple[Tensor, Tokens]:
        """Return ``encode_image``'s features, and tokens."""
        return self._encode_tokens("image", images)

    def encode_text_tokens(self, texts: Any) -> tuple[Tensor, Tokens]:
        """Return ``encode_text``'s features, and tokens."""
        return self._encode_tokens("text", texts)

    def _encode(self, side: str, inputs: Any) -> Tensor:
        if side not in self.tables:
            return encode_function(self.encoder, side)(inputs)
        return self._headed(side, self.tables[side](inputs))

    def _encode_tokens(self, side: str, inputs: Any) -> tuple[Tensor, Tokens]:
        if side in self._with_tokens:
            features, tokens = self._with_tokens[side](inputs)
            return self._headed(side, features), tokens
        encode = token_function(self.encoder, side)
        if encode is None:
            raise ValueError(f"this {type(self.encoder).__name__} gives no {side} tokens")
        return encode(inputs)

    def _headed(self, side: str, features: Tensor) -> Tensor:
        return self.heads[side](features) if side in self.heads else features


def _require_tables(known: Mapping[str, object]) -> None:
    for side, table in known.items():
        if not isinstance(table, FeatureTable) or table.side != side:
            raise TypeError(
                f"known must be FeatureTables by their side, got {shown(table)} for {side!r}"
            )

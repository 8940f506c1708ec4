"""The seams between the parts: what an encoder, a fusion, a loss and a dataset must offer.

Nothing needs a base class: a module, a function and a lambda all pass.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from fusecomp.records import Task, Triplet

__all__ = ["Dataset", "Encoder", "Fusion", "Loss"]


@runtime_checkable
class Encoder(Protocol):
    """Turns images and texts into features of one width D, on one device.

    Three attributes are optional:

    - ``load``: a picklable callable, path -> tensor, that opens one picture for ``encode_image``.
    - ``lookup``: a mapping from a side (``"image"``, ``"text"``) to a function that turns ids
      or texts into the row numbers which that side then takes (see ``CachedEncoder``).
    - ``towers``: a mapping from a side to the name patterns of its parameters, which makes
      ``StageConfig(train="text")`` possible.
    """

    def encode_image(self, images: Any, /) -> Tensor:
        """Features [B, D] of B loaded pictures."""
        ...

    def encode_text(self, texts: Any, /) -> Tensor:
        """Features [B, D] of B strings."""
        ...


@runtime_checkable
class Fusion(Protocol):
    """Turns image features [B, D] and text features [B, D] into queries [B, D]."""

    def __call__(self, image: Tensor, text: Tensor, /) -> Tensor:
        """Queries [B, D]."""
        ...


@runtime_checkable
class Loss(Protocol):
    """Compares queries [B, D] with their targets [B, D] (row i belongs to row i)."""

    def __call__(self, query: Tensor, target: Tensor, /) -> Tensor:
        """A scalar."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """Knows ids, texts, paths and its protocol; opens no picture.

    An attribute ``protocol`` (a mapping of strings) is optional; evaluation prints it beside
    each score.
    """

    @property
    def image_ids(self) -> Sequence[str]:
        """Every image that a triplet or a task names, once."""
        ...

    def path(self, image_id: str, /) -> Path:
        """Where the picture lies."""
        ...

    def triplets(self, epoch: int = 0, seed: int = 0) -> Sequence[Triplet]:
        """The triplets of one epoch, always in the same order."""
        ...

    def texts(self) -> Sequence[str]:
        """Every text that can occur in a triplet or a task, once."""
        ...

    def tasks(self) -> Sequence[Task]:
        """What evaluation ranks."""
        ...

    def __len__(self) -> int:
        """The number of triplets."""
        ...


class SupportsLoad(Encoder, Protocol):
    """An encoder that opens pictures."""

    def load(self, path: Path, /) -> Tensor:
        """One picture as ``encode_image`` takes it, without the batch dimension."""
        ...


class SupportsLookup(Encoder, Protocol):
    """An encoder with at least one side that takes row numbers."""

    lookup: Mapping[str, Any]

"""The seams between the parts: what an encoder, a fusion, a loss and a dataset must offer.

Nothing needs a base class: a module, a function and a lambda all pass.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from fusecomp.checks import shown
from fusecomp.records import Task, Triplet

__all__ = [
    "BATCH_IDS",
    "SIDES",
    "Dataset",
    "Encoder",
    "Fusion",
    "Loss",
    "require",
    "require_both",
    "require_choice",
]

# The two sides of an encoder, wherever one is named.
SIDES = ("image", "text")
# The keywords of a loss that get a batch's ids, if it accepts them.
BATCH_IDS = ("target_ids", "reference_ids")


@runtime_checkable
class Encoder(Protocol):
    """Turns images and texts into features of one width D, on one device.

    Three attributes are optional:

    - ``load``: a picklable callable, path -> tensor, that opens one picture for ``encode_image``.
    - ``lookup``: a mapping from a side (``"image"``, ``"text"``) to a function that turns ids
      or texts into the row numbers which that side then takes (see ``CachedEncoder``).
    - ``towers``: a mapping from a side to the name patterns of its parameters, which makes
      ``StageConfig(train="text")`` possible. With ``"heads"`` among them, ``heads`` (a mapping
      from a side to its module) and ``encode_tower(side, inputs)`` (the features below it) must
      be there too.

    An encoder that is no module looks after its own device and evaluation mode.
    """

    def encode_image(self, images: Any, /) -> Tensor:
        """Features [B, D] of B loaded pictures, of any length: nothing asks for unit vectors."""
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

    Two attributes are optional: ``protocol`` (a mapping of strings), which evaluation prints
    beside each score, and ``triplet_image_ids``, the images that triplets can name, where the
    galleries hold more: only these are cached for training.
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


def require(name: str, value: Any, member: str, kind: str, order: str) -> None:
    """Raise TypeError unless an argument has the member that makes it of a kind.

    It is asked first where arguments are easily swapped; ``order`` is the right one.
    """
    if isinstance(value, type):
        raise TypeError(f"{name} is the class {value.__name__}: pass an instance of it")
    if not hasattr(value, member):
        raise TypeError(f"{name} must be {kind}, got {type(value).__name__}; the order is {order}")


def require_both(model: Any, dataset: Any) -> None:
    """Raise TypeError unless these are a model and a dataset."""
    require("model", model, "compose", "a ComposedEncoder", "model, dataset")
    require("dataset", dataset, "tasks", "a Dataset", "model, dataset")


def require_choice(name: str, value: object, valid: Collection[str]) -> None:
    """Raise ValueError that lists the valid values unless this is one of them."""
    # An array would compare element by element, a list cannot be looked up in a mapping.
    if not isinstance(value, str) or value not in valid:
        raise ValueError(f"unknown {name} {shown(value)}; valid: {', '.join(map(repr, valid))}")

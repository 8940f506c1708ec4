from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusecomp.encoders._feature_file import FeatureFile, read_features, write_features
from fusecomp.encoders._features import FeatureTable, compute_table
from fusecomp.protocols import SIDES, Dataset, Encoder
from fusecomp.similarity import widen

__all__ = ["CachedEncoder"]


class CachedEncoder(nn.Module):
    """Features computed once and looked up by image id and by text; itself an encoder.

    ``lookup["image"]`` turns image ids into row numbers and ``lookup["text"]`` texts; both
    encode methods take row numbers (int64 [B]) or the strings themselves.

    Make one with ``build`` (from an encoder), ``from_arrays`` (from features of your own) or
    ``load`` (from a file, memory-mapped).

    Example:
        >>> import numpy as np
        >>> cached = CachedEncoder.from_arrays(
        ...     ["a", "b"], np.eye(2, dtype="float32"), ["is red"], np.ones((1, 2), "float32")
        ... )
        >>> cached.lookup["image"](["b"])
        tensor([1])
        >>> cached.encode_image(["b"])
        tensor([[0., 1.]])
    """

    def __init__(self, image: FeatureTable, text: FeatureTable, key: str = "") -> None:
        super().__init__()
        widths = image.features.shape[1], text.features.shape[1]
        if widths[0] != widths[1]:
            raise ValueError(f"image features have width {widths[0]}, text features {widths[1]}")
        self.image = image
        self.text = text
        self.key = key

    @classmethod
    def from_arrays(
        cls,
        image_ids: Sequence[str],
        images: NDArray[Any] | Tensor,
        texts: Sequence[str],
        text_features: NDArray[Any] | Tensor,
        key: str = "",
    ) -> Self:
        """Features that you have: ``images`` [N, D] by id and ``text_features`` [T, D] by text.

        Raises:
            ValueError: if names and rows differ in number, a name occurs twice, widths differ,
                or a feature is NaN or infinite.
        """
        return cls(
            FeatureTable("image", image_ids, images),
            FeatureTable("text", texts, text_features),
            key,
        )

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        *datasets: Dataset,
        path: str | Path | None = None,
        key: str | None = None,
        batch_size: int = 128,
        workers: int | None = None,
    ) -> Self:
        """Compute the features of every image and text of the datasets, once.

        Args:
            encoder: in evaluation mode meanwhile, on the device of its weights.
            *datasets: whose ``image_ids`` and ``texts()`` are encoded.
            path: a file for the features; if it exists, it is read instead.
            key: names the encoder's state; default ``encoder.fingerprint()``. A file with
                another key is refused.
            batch_size: inputs encoded at once.
            workers: processes that load pictures; None chooses.

        Raises:
            FileNotFoundError: if pictures are missing; counts them and names the first.
            PictureError: if one cannot be read.
            ValueError: if the file at ``path`` belongs to another encoder or to other datasets,
                if there is no key for it, or if a feature is NaN or infinite.
        """
        if not datasets:
            raise ValueError("build needs at least one dataset to know what to encode")
        if path is not None:
            key = _key_of(encoder) if key is None else key
            if Path(path).exists():
                return cls._reload(Path(path), key, datasets)
        image, text = (compute_table(encoder, datasets, s, batch_size, workers) for s in SIDES)
        cached = cls(image, text, key or "")
        if path is not None:
            cached.save(path)
        return cached

    @classmethod
    def _reload(cls, path: Path, key: str, datasets: Sequence[Dataset]) -> Self:
        cached = cls.load(path)
        way_out = "delete it to compute them again, or give another path"
        if cached.key != key:
            raise ValueError(
                f"{path} holds features under the key {cached.key!r}, but the encoder's is "
                f"{key!r}; {way_out}"
            )
        for data in datasets:
            for table, names in ((cached.image, data.image_ids), (cached.text, data.texts())):
                missing = [name for name in names if name not in table.rows]
                if missing:
                    raise ValueError(
                        f"{path} lacks the features of {len(missing)} {table.side}s, the first: "
                        f"{missing[0]!r}; {way_out}"
                    )
        return cached

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a feature file; its arrays are memory-mapped.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is torn or no feature file.
        """
        content = read_features(Path(path))
        try:
            return cls.from_arrays(
                content.image_ids,
                content.image_features,
                content.texts,
                content.text_features,
                content.key,
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write one file in the safetensors layout, atomically."""
        image, text = (_as_numpy(table.features) for table in (self.image, self.text))
        names = list(self.image.rows), list(self.text.rows)
        write_features(Path(path), FeatureFile(names[0], image, names[1], text, self.key))

    @property
    def lookup(self) -> Mapping[str, Callable[[Sequence[str]], Tensor]]:
        """For each side, the function from names to row numbers int64 [B]."""
        return {"image": self.image.find, "text": self.text.find}

    def encode_image(self, images: Tensor | Sequence[str]) -> Tensor:
        """Features [B, D] of row numbers or ids, float32 at least."""
        features: Tensor = self.image(images)
        return features

    def encode_text(self, texts: Tensor | Sequence[str]) -> Tensor:
        """Features [B, D] of row numbers or texts, float32 at least."""
        features: Tensor = self.text(texts)
        return features

    def fingerprint(self) -> str:
        """The key that the features were computed under.

        Raises:
            ValueError: if they have none.
        """
        if not self.key:
            raise ValueError("these cached features have no key; pass one to from_arrays")
        return self.key


def _as_numpy(features: Tensor) -> NDArray[Any]:
    # numpy has no bfloat16; float32 holds its values exactly.
    return (widen(features) if features.dtype == torch.bfloat16 else features).cpu().numpy()


def _key_of(encoder: Encoder) -> str:
    make = getattr(encoder, "fingerprint", None)
    if make is None:
        raise ValueError(
            f"{type(encoder).__name__} has no fingerprint(): pass a key that names its weights"
        )
    key: str = make()
    return key

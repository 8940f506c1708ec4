import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusecomp._core.abilities import token_function
from fusecomp._core.checks import as_path, as_text, require, require_kind
from fusecomp._core.devices import inference
from fusecomp.caching._blocks import Blocks
from fusecomp.caching._extraction import Extraction, compute_table
from fusecomp.caching._feature_file import read_features, write_features
from fusecomp.caching._feature_table import FeatureTable
from fusecomp.caching._stale_features import key_of, require_same
from fusecomp.distributed import first_alone, join
from fusecomp.images import By, file_marks, image_paths
from fusecomp.types import SIDES, Dataset, Encoder, Find, Tokens


class CachedEncoder(nn.Module):
    """Features computed once and looked up by image id and by text; itself an encoder.

    Make one with ``build`` (from an encoder), ``from_arrays`` (from features of your own) or
    ``load`` (from a file, memory-mapped). Both encode methods take strings, or the row numbers
    (int64 [B]) that ``lookup["image"]`` and ``lookup["text"]`` return.

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

    def __init__(
        self,
        image: FeatureTable,
        text: FeatureTable,
        key: str = "",
        image_marks: Tensor | None = None,
    ) -> None:
        super().__init__()
        devices = image.features.device, text.features.device
        if devices[0] != devices[1]:
            raise ValueError(f"image features are on {devices[0]}, text features on {devices[1]}")
        self.image = image
        self.text = text
        self.key = key
        # Of each image of the table, then of each that was skipped.
        self._image_marks = image_marks

    @classmethod
    def from_arrays(
        cls,
        image_ids: Sequence[str],
        image_features: NDArray[Any] | Tensor,
        texts: Sequence[str],
        text_features: NDArray[Any] | Tensor,
        key: str = "",
    ) -> Self:
        """Look up features that you have, by image id and by text.

        Args:
            image_ids: N strings, in the order of the rows.
            image_features: floating [N, D], as the encoder gave them, not scaled to unit length:
                a fusion takes their lengths into account. A tensor, kept without its graph, or
                anything that numpy makes an array of, shared where torch can write to it.
            texts: T strings, in the order of the rows.
            text_features: [T, E], as ``image_features``; E may differ from D.
            key: names the features, where they are to be cached or compared.

        Raises:
            TypeError: if names are no list of strings, features are no array of numbers, or the
                key is no string.
            ValueError: if names and rows differ in number, a name occurs twice, devices differ,
                or a feature is NaN or infinite.
        """
        key = as_text("key", key)
        image = FeatureTable("image", image_ids, image_features)
        text = FeatureTable("text", texts, text_features)
        image.require_finite()
        text.require_finite()
        return cls(image, text, key)

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        *datasets: Dataset,
        path: str | Path | None = None,
        key: str | None = None,
        batch_size: int = 128,
        num_workers: int | None = None,
        precision: str = "fp32",
        dtype: torch.dtype | None = None,
        on_error: str = "raise",
        tokens: Sequence[str] = (),
    ) -> Self:
        """Compute the features of every image and text of the datasets, once.

        With a path, they are kept in a file, which is read again only if it was made by an encoder
        of the same weights and settings from image files of the same sizes. Images that are not
        there count as unchanged, with one warning, so that features can be used without them.

        Finished blocks are kept in ``PATH.partial/`` meanwhile: after a kill, the same call goes on
        from the last one. Under torchrun the processes share the work, and all must see ``path``.

        Args:
            encoder: in evaluation mode meanwhile, on the device of its weights.
            *datasets: whose ``image_ids`` and ``texts()`` are encoded.
            path: a file for the features; if it exists, it is read instead.
            key: names the encoder's state; default ``encoder.fingerprint()``. ``"content"`` is
                the default too, but compares image files by a hash of their content, which reads
                them.
            batch_size: inputs encoded at once.
            num_workers: processes that load images; None chooses.
            precision: ``"fp32"``, or autocast to ``"bf16"`` or (on GPUs only) ``"fp16"``.
            dtype: what features are stored as: ``torch.float16``, ``bfloat16``, ``float32`` or
                ``float64``; None keeps what the encoder gives, float32 at least.
            on_error: ``"raise"`` stops at the first image that is missing or broken;
                ``"skip"`` lists it in ``skipped`` and goes on.
            tokens: the sides (``"image"``, ``"text"``) whose tokens are kept too, for fusions that
                name ``image_tokens`` or ``text_tokens``; in the dtype that the encoder gives, if
                ``dtype`` is None. Before it writes, it says how many bytes they take.

        Raises:
            FileNotFoundError: if images are missing.
            ImageError: if an image cannot be read.
            ValueError: if the file belongs to another key, precision or dtype, or to other datasets
                or image files, or lacks tokens; if the encoder gives none; if one image id means
                two files; if there is no key, a feature is NaN or infinite, or no image could be
                read; on a bad setting.
            TypeError: if encoder, datasets or key are something else.
        """
        if not datasets:
            raise ValueError("build needs at least one dataset to know what to encode")
        extraction = Extraction(batch_size, num_workers, precision, dtype, on_error, tokens)
        order = "encoder, dataset, another dataset, ..."
        require("encoder", encoder, "encode_image", "an encoder", order)
        for data in datasets:
            require("dataset", data, "image_ids", "a Dataset", order)
        require_kind("key", key, str | None, "a string")
        _require_tokens(encoder, extraction.tokens)
        join()
        with inference(encoder):  # key and both sides of the same weights, during a training too
            return cls._build(encoder, datasets, path, key, extraction)

    @classmethod
    def _build(
        cls,
        encoder: Encoder,
        datasets: Sequence[Dataset],
        path: str | Path | None,
        key: str | None,
        extraction: Extraction,
    ) -> Self:
        paths = image_paths(datasets)
        if path is None:
            image, text = (compute_table(encoder, datasets, side, extraction) for side in SIDES)
            return cls(image, text, key or "")
        by: By = "content" if key == "content" else "size"
        marks = dict(zip(paths, file_marks(list(paths.values()), by).tolist(), strict=True))
        path, key = as_path("path", path), key_of(encoder, key, extraction)
        if path.exists():
            cached = cls.load(path)
            require_same(path, cached, key, marks, datasets, extraction)
            return cached
        folder = path.with_name(f"{path.name}.partial")
        kept = {side: " tokens" if side in extraction.tokens else "" for side in SIDES}
        image, text = (
            compute_table(
                encoder, datasets, s, extraction, finished=Blocks(folder, f"{key} {s}{kept[s]}", m)
            )
            for s, m in zip(SIDES, (marks, None), strict=True)
        )
        names = (*image.rows, *image.skipped)
        cached = cls(image, text, key, torch.tensor([marks[name] for name in names]))
        with first_alone() as first:
            if first:
                cached.save(path)
                shutil.rmtree(folder, ignore_errors=True)
        return cached

    @classmethod
    def load(cls, path: str | Path, *, check: bool = False) -> Self:
        """Read a feature file; its arrays are memory-mapped, so a million rows take a second.

        Args:
            path: what ``save`` or ``build`` wrote; the checksum of all but features and tokens is
                verified. Their values were finite when they were written.
            check: verify the checksum of features and tokens too, which reads them.

        Raises:
            FileNotFoundError: if there is none.
            OSError: if it is no regular file, or cannot be opened.
            ValueError: if it is torn, changed or no feature file; or if it has no checksum, as one
                that another program wrote, and a feature is NaN or infinite.
        """
        return cls(*read_features(as_path("path", path), check))

    def save(self, path: str | Path) -> None:
        """Write one file in the safetensors layout, atomically.

        Raises:
            OSError: if writing fails.
            ValueError: if a feature is NaN or infinite by now.
        """
        write_features(as_path("path", path), self.image, self.text, self.key, self._image_marks)

    @property
    def image_marks(self) -> Mapping[str, int]:
        """The size in bytes, or a hash, of each image's file by id, skipped ones included.

        -1 where there was no file; empty where the files are not known.
        """
        names = (*self.image.rows, *self.image.skipped)
        marks = () if self._image_marks is None else self._image_marks.tolist()
        return dict(zip(names, marks, strict=False))

    @property
    def skipped(self) -> Mapping[str, str]:
        """The ids of images that could not be read, and the reasons."""
        return self.image.skipped

    @property
    def lookup(self) -> Mapping[str, Find]:
        """For each side, the function from names to row numbers int64 [B]."""
        return {"image": self.image.find, "text": self.text.find}

    def encode_image(self, images: Tensor | Sequence[str]) -> Tensor:
        """Return features [B, D] of row numbers (int64 [B]) or ids, as they were computed."""
        features: Tensor = self.image(images)
        return features

    def encode_text(self, texts: Tensor | Sequence[str]) -> Tensor:
        """Return features [B, T] of row numbers (int64 [B]) or texts, as they were computed."""
        features: Tensor = self.text(texts)
        return features

    @property
    def token_sides(self) -> list[str]:
        """The sides whose tokens are kept."""
        return [table.side for table in (self.image, self.text) if table.tokens is not None]

    def encode_image_tokens(self, images: Tensor | Sequence[str]) -> tuple[Tensor, Tokens]:
        """Return ``encode_image``'s features, and tokens as they were computed."""
        return self.image.with_tokens(images)

    def encode_text_tokens(self, texts: Tensor | Sequence[str]) -> tuple[Tensor, Tokens]:
        """Return ``encode_text``'s features, and tokens as they were computed."""
        return self.text.with_tokens(texts)

    def fingerprint(self) -> str:
        """Return the key that the features were computed under.

        Raises:
            ValueError: if they have none.
        """
        if not self.key:
            raise ValueError("these cached features have no key; pass one to from_arrays")
        return self.key


def _require_tokens(encoder: Encoder, sides: Sequence[str]) -> None:
    for side in sides:
        if token_function(encoder, side) is None:
            raise ValueError(
                f"tokens={sides}, but this {type(encoder).__name__} gives no {side} tokens "
                "(see types.GivesTokens)"
            )

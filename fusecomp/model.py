"""The composed encoder: what users train, query, save and load."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from fusecomp import fusions
from fusecomp._core.abilities import encode_function, image_loader, lookups_of, similarity_of
from fusecomp._core.checks import as_path, no_class, ordered, require, shown, strings
from fusecomp._core.devices import device_of, inference, require_one_device
from fusecomp._core.identity import class_name, without_compile
from fusecomp._core.saved_model import SavedModel, describe_parts, read_model, write_model
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import (
    check_features,
    check_tensor,
    check_text_counts,
    non_finite_rows,
    widen,
)
from fusecomp._core.weights import check_weights
from fusecomp.distributed import plain_class, prepare
from fusecomp.images import load_few, require_files
from fusecomp.types import Encoder, Fusion, Similarity

__all__ = ["ComposedEncoder"]

_BATCH = 128
# Loaded images [B, ...], or paths or ids.
Images = Tensor | Sequence[str | Path]


class ComposedEncoder(nn.Module):
    """An encoder and a fusion: reference image + text -> one query of unit length.

    Args:
        encoder: anything with ``encode_image`` and ``encode_text``; it is taken out of a
            DistributedDataParallel, and FSDP2's ``fully_shard`` may have been called on it.
        fusion: any callable ``fusion(image, text) -> query`` of image features [B, D] and text
            features [B, T] (``Sum`` and ``Combiner`` need T = D); the query has the width D.

    Raises:
        TypeError: if encoder or fusion lack what they need, or the fusion's similarity is no
            function.

    Example:
        >>> from fusecomp.caching import CachedEncoder
        >>> from fusecomp.fusions import Sum
        >>> cached = CachedEncoder.from_arrays(
        ...     ["a", "b"], torch.tensor([[3.0, 0.0], [0.0, 1.0]]),
        ...     ["is red"], torch.tensor([[0.0, 4.0]]),
        ... )
        >>> ComposedEncoder(cached, Sum()).encode_query(["a"], ["is red"])
        tensor([[0.6000, 0.8000]])
    """

    def __init__(self, encoder: Encoder, fusion: Fusion) -> None:
        super().__init__()
        encoder = prepare(encoder)
        for method in ("encode_image", "encode_text"):
            require("encoder", encoder, method, f"an encoder with {method}")
        no_class("fusion", fusion)
        if not callable(fusion):
            raise TypeError(f"fusion must be callable, got {type(fusion).__name__}")
        similarity_of(fusion)  # raises on one that cannot be called
        self.encoder = encoder
        self.fusion = fusion

    @property
    def similarity(self) -> Similarity | None:
        """The fusion's own similarity (late interaction), or None: then the cosine compares."""
        return similarity_of(self.fusion)

    def encode_query(self, references: Images, texts: Sequence[str]) -> Tensor:
        """Return queries for search, without gradients and in evaluation mode.

        Args:
            references: B images: a tensor that ``encode_image`` takes, a list of paths, or, if
                the encoder looks images up, a list of ids.
            texts: B strings, one for each reference.

        Shape:
            [B, D], unit length; [B, E] as it is, of a fusion with a similarity of its own.

        Raises:
            TypeError: if encoder or fusion return no tensor.
            ValueError: if the numbers differ, references or texts are no lists or empty, an id is
                unknown, the encoder returns another shape than [B, D], encoder and fusion are on
                different devices, or a query is NaN or infinite.
            FileNotFoundError: naming a string that is no file.
        """
        if not isinstance(references, Tensor):
            references = _names("references", references)
        for position, text in enumerate(ordered("texts", texts, "strings")):
            if isinstance(text, list | tuple):
                raise ValueError(
                    f"texts[{position}] is {shown(text)}, but a query takes one text: for several, "
                    "pass text_counts to compose, or evaluate a dataset of Triplet(..., texts=...)"
                )
        texts = strings("texts", texts)
        if len(references) != len(texts) or len(texts) == 0:
            raise ValueError(
                f"{len(references)} references but {len(texts)} texts: give as many, and not empty"
            )
        require_one_device(self.encoder, self.fusion)
        with inference(self.encoder, self.fusion):
            images = self._encode_images(references)
            blocks = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
            features = torch.cat([self._encode("text", block) for block in blocks])
            queries = self.compose(images, features)
        for row in non_finite_rows(queries)[:1]:
            raise ValueError(
                f"query {row} ({_shown_row(references, row)} with {texts[row]!r}) holds NaN or "
                "infinity; check the reference, the encoder and the fusion's weights"
            )
        return queries

    def encode_gallery(self, images: Images) -> Tensor:
        """Return what queries are compared with: image features [N, D].

        They have unit length where the cosine compares, and are as the encoder gives them where
        the fusion has a similarity of its own.

        They are no references: a fusion takes features of the length that the encoder gives them.

        Args:
            images: N images: a tensor that ``encode_image`` takes, a list of paths, or, if the
                encoder looks images up, a list of ids.

        Raises:
            ValueError: if images are no list or empty, an id is unknown, the encoder returns
                another shape than [N, D], or a feature is NaN or infinite.
            FileNotFoundError: naming a string that is no file.
        """
        with inference(self.encoder):
            gallery = self._encode_images(images)
            dtype = torch.promote_types(self._dtype() or gallery.dtype, torch.float32)
            gallery = gallery.to(dtype)  # of queries
            if self.similarity is None:
                gallery = normalize(gallery)
        for row in non_finite_rows(gallery)[:1]:
            raise ValueError(
                f"image {row} ({_shown_row(images, row)}) has features with NaN or infinity; check "
                "the image and the encoder"
            )
        return gallery

    def compose(self, image: Tensor, text: Tensor, text_counts: Tensor | None = None) -> Tensor:
        """Fuse features into queries, scaled to unit length if the cosine compares. Has gradients.

        Args:
            image: [B, D] from ``encode_image``, not scaled to unit length.
            text: [B, T] from ``encode_text``, or [N, T] with text_counts.
            text_counts: int64 [B], each 1 at least, summing to N: the number of texts of each row,
                in order, whose features are averaged. Best on the CPU.

        Shape:
            [B, D], or [B, E] of a fusion with a similarity of its own; in the dtype of the fusion's
            weights where it has some, float32 at least.

        Raises:
            TypeError: if features, counts or what the fusion returns are no torch tensors.
            ValueError: if features are no rows of a floating dtype, texts or text_counts do not
                fit the images, or the fusion returns another shape.
        """
        image, text = widen(check_features(image, "image")), widen(check_features(text, "text"))
        if text_counts is not None:
            check_text_counts(text_counts, len(image), len(text))
        dtype = self._dtype()
        image, text = image.to(dtype), text.to(dtype)
        if text_counts is not None and len(text) != len(text_counts):
            text = _average(text, text_counts)
        elif len(text) != len(image):
            raise ValueError(
                f"{len(image)} images but {len(text)} texts: where a row has several texts, pass "
                "text_counts (a Batch has them)"
            )
        query = check_tensor(self.fusion(image, text), "what the fusion returns")
        if self.similarity is not None:
            if query.ndim != 2 or len(query) != len(image):
                shape = list(query.shape)
                raise ValueError(f"the fusion returned {shape}, expected [{len(image)}, E]")
            return widen(query, "what the fusion returns")
        if query.shape != image.shape:
            shape, expected = list(query.shape), list(image.shape)
            raise ValueError(
                f"the fusion returned {shape} for features {expected}: the cosine compares rows of "
                "one width"
            )
        return normalize(widen(query, "what the fusion returns"))

    def forward(self, images: Any, texts: Any) -> Tensor:
        """Do ``compose`` on the features of what ``encode_image`` and ``encode_text`` take."""
        return self.compose(self.encoder.encode_image(images), self.encoder.encode_text(texts))

    def _dtype(self) -> torch.dtype | None:
        """Return the dtype of the fusion's weights, as numpy's features are float64 by habit."""
        weights = self.fusion.parameters() if isinstance(self.fusion, nn.Module) else ()
        return next((weight.dtype for weight in weights if weight.is_floating_point()), None)

    def _encode_images(self, images: Images) -> Tensor:
        device = device_of(self.encoder)
        if isinstance(images, Tensor):
            return self._encode("image", images.to(device))
        images = _names("images", images)
        if not images:
            raise ValueError("expected a non-empty list of images, got []")
        lookup = lookups_of(self.encoder)
        if "image" in lookup:
            rows = lookup["image"]([str(image) for image in images])
            return self._encode("image", rows.to(device))
        load_image = image_loader(self.encoder)
        if load_image is None:
            raise ValueError(
                f"{type(self.encoder).__name__} neither loads files nor looks ids up; "
                f"pass loaded images instead of {images[0]!r}"
            )
        paths = [Path(image) for image in images]
        require_files(paths)
        blocks = (paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH))
        return torch.cat(
            [self._encode("image", load_few(block, load_image).to(device)) for block in blocks]
        )

    def _encode(self, side: str, inputs: Tensor | Sequence[str]) -> Tensor:
        encode = encode_function(self.encoder, side)
        features = check_tensor(encode(inputs), f"what encode_{side} returns")
        if features.ndim != 2 or len(features) != len(inputs):
            shape, rows = list(features.shape), len(inputs)
            raise ValueError(
                f"encode_{side} returned {shape} for {rows} inputs, expected [{rows}, D]"
            )
        return features

    def save(self, folder: str | Path) -> None:
        """Write a folder atomically; a model that was saved there before is replaced.

        ``weights.safetensors`` holds all weights, the encoder's included, ``config.json`` the
        classes and settings of both parts, the arguments of a fusion of ``fusecomp.fusions``, and
        checksums. With a sharded encoder, every process must call it.

        Raises:
            OSError: if writing fails, or if a file, or a folder of other files, has this name.
            ValueError: if a part does not tell its settings, or a weight is no dense tensor.
        """
        parts = describe_parts(self.encoder, self.fusion, _arguments(self.fusion))
        write_model(as_path("folder", folder), parts, self.state_dict())

    @classmethod
    def load(cls, folder: str | Path, encoder: Encoder, fusion: Fusion | None = None) -> Self:
        """Read what ``save`` wrote into an encoder and a fusion of the same classes and settings.

        Both are in evaluation mode afterwards. A fusion that was trained on cached features fits
        any encoder, with a warning where the features are known to be those of another one.

        Args:
            folder: what ``save`` wrote.
            encoder: gets the saved weights.
            fusion: gets the saved weights; None rebuilds one of ``fusecomp.fusions`` on the
                encoder's device.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: if a file in it is torn, changed or of another kind; if it does not fit the
                encoder and fusion, which then stay as they are; or if the saved fusion is not
                of ``fusecomp.fusions`` and none is given.
        """
        saved = read_model(as_path("folder", folder))
        model = cls(encoder, _rebuilt(saved, encoder) if fusion is None else fusion)
        saved.copy_into(model, describe_parts(model.encoder, model.fusion))
        saved.warn_of_other_features(model.encoder)
        return model.eval()


_FUSIONS: dict[str, type[nn.Module]] = {name: vars(fusions)[name] for name in fusions.__all__}


def _arguments(fusion: Fusion) -> dict[str, object] | None:
    """Return the arguments that rebuild a fusion; None of a class that is not fusecomp's own."""
    module = without_compile(fusion)
    if plain_class(module) is not _FUSIONS.get(class_name(module)):
        return None
    # Each fusion keeps its arguments under their own names.
    names = inspect.signature(_FUSIONS[class_name(module)]).parameters
    return {name: value for name, value in vars(module).items() if name in names}


def _rebuilt(saved: SavedModel, encoder: Encoder) -> Fusion:
    name, arguments = saved.parts.fusion, saved.parts.arguments
    if arguments is None or name not in _FUSIONS:
        raise ValueError(
            f"{saved.path} holds the fusion {name}, which is not rebuilt: pass fusion="
        )
    where, prefix = f"{saved.path} holds no complete {name}", "fusion."
    of_fusion = {n: tensor for n, tensor in saved.weights.items() if n.startswith(prefix)}
    weights = {n.removeprefix(prefix): tensor for n, tensor in of_fusion.items()}
    try:
        with torch.device("meta"):  # sizes may be a hostile file's
            expected = _FUSIONS[name](**arguments).state_dict()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: {error}") from error
    check_weights(where, weights, expected)
    dtype = next((t.dtype for t in weights.values() if t.is_floating_point()), None)
    return _FUSIONS[name](**arguments).to(device_of(encoder), dtype)


def _names(name: str, values: object) -> list[str | Path]:
    """Return paths or ids as a list; ValueError on anything else."""
    if isinstance(values, Path):
        values = str(values)
    listed = ordered(name, values, "strings")
    for position, value in enumerate(listed):
        if not isinstance(value, str | Path):
            raise ValueError(
                f"{name} must be a list of paths or ids, or one tensor of loaded images: "
                f"{name}[{position}] is {shown(value)}"
            )
    return listed


def _shown_row(references: Images, row: int) -> str:
    return "a loaded image" if isinstance(references, Tensor) else f"{str(references[row])!r}"


def _average(features: Tensor, counts: Tensor) -> Tensor:
    counts = counts.to(features.device)
    rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    total = features.new_zeros(len(counts), features.shape[1]).index_add(0, rows, features)
    return total / counts.unsqueeze(1)

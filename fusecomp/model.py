"""The composed encoder: what users train, query, save and load."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from fusecomp import fusions
from fusecomp._core.abilities import (
    encode_named,
    image_loader,
    lookups_of,
    similarity_of,
)
from fusecomp._core.checks import as_path, no_class, require, shown
from fusecomp._core.devices import device_of, inference, require_one_device
from fusecomp._core.fusion_inputs import fusion_inputs, require_tokens
from fusecomp._core.keywords import needed_keywords, require_known, taken_keywords
from fusecomp._core.query_inputs import as_ids, as_images, one_each, shown_row
from fusecomp._core.saved_model import arguments_of, describe_parts, read_model, write_model
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import (
    Array,
    as_tensor,
    average_rows,
    check_features,
    check_tensor,
    check_text_counts,
    non_finite_rows,
    widen,
)
from fusecomp.distributed import prepare
from fusecomp.images import load_given
from fusecomp.types import FUSION_KEYWORDS, Encoder, Fusion, Similarity, Tokens

__all__ = ["ComposedEncoder"]

_BATCH = 128
# Loaded images [B, ...], or paths, ids, PIL images, arrays of pixels, loaded tensors.
Images = Tensor | Sequence[object]
# Features of a side, and its tokens where the fusion names them.
Encoded = tuple[Tensor, Tokens | None]


class ComposedEncoder(nn.Module):
    """An encoder and a fusion: reference image + text -> one query of unit length.

    Args:
        encoder: anything with ``encode_image`` and ``encode_text``; it is taken out of a
            DistributedDataParallel, and FSDP2's ``fully_shard`` may have been called on it.
        fusion: any callable ``fusion(image, text) -> query`` of image features [B, D] and text
            features [B, T] (``Sum`` and ``Combiner`` need T = D); the query has the width D. Those
            of ``types.FUSION_KEYWORDS`` that it names it gets too, where encoder and dataset give
            them; where it names tokens without a default, the encoder must.

    Raises:
        TypeError: if encoder or fusion lack what they need, or the fusion's similarity is no
            function.
        ValueError: if the fusion needs tokens that the encoder does not give, or another keyword.

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
        require_known("fusion", fusion, FUSION_KEYWORDS)
        self.fusion_keywords = taken_keywords(fusion, FUSION_KEYWORDS)
        self._needed = needed_keywords(fusion, FUSION_KEYWORDS)
        require_tokens(encoder, fusion, self._needed)

    @property
    def similarity(self) -> Similarity | None:
        """The fusion's own similarity (late interaction), or None: then the cosine compares."""
        return similarity_of(self.fusion)

    def encode_query(
        self, references: Images, texts: Sequence[str], reference_texts: Sequence[str] | None = None
    ) -> Tensor:
        """Return queries for search, without gradients and in evaluation mode.

        Args:
            references: B images: a tensor that ``encode_image`` takes, or a list of ids, if the
                encoder looks images up, or else of paths, PIL images, arrays of pixels (uint8
                [H, W, 3]) or tensors as ``load_image`` returns them.
            texts: B strings, one for each reference.
            reference_texts: B prompts that describe the references, for a fusion that names
                ``reference_text``; others get nothing of them.

        Shape:
            [B, D], unit length; [B, E] as it is, of a fusion with a similarity of its own.

        Raises:
            TypeError: if encoder or fusion return no tensor.
            ValueError: if the numbers differ, references or texts are no lists or empty, an id is
                unknown, the fusion needs reference_texts, the encoder returns another shape than
                [B, D], encoder and fusion are on different devices, or a query is NaN or infinite.
            FileNotFoundError: naming a string that is no file.
        """
        if not isinstance(references, Tensor):
            references = as_images("references", references)
        texts = one_each("texts", texts, len(references))
        if reference_texts is None and "reference_text" in self._needed:
            raise ValueError(
                "the fusion needs reference_text: pass reference_texts, a prompt for each reference"
            )
        prompts = None
        require_one_device(self.encoder, self.fusion)
        with inference(self.encoder, self.fusion):
            image, image_tokens = self._encode_images(references, self.fusion_keywords)
            text, text_tokens = self._encode_texts(texts, self.fusion_keywords)
            if reference_texts is not None and "reference_text" in self.fusion_keywords:
                listed = one_each("reference_texts", reference_texts, len(references))
                prompts, _ = self._encode_texts(listed)
            queries = self.compose(
                image,
                text,
                image_tokens=image_tokens,
                text_tokens=text_tokens,
                reference_text=prompts,
            )
        for row in non_finite_rows(queries)[:1]:
            raise ValueError(
                f"query {row} ({shown_row(references, row)} with {texts[row]!r}) holds NaN or "
                "infinity; check the reference, the encoder and the fusion's weights"
            )
        return queries

    def encode_gallery(self, images: Images) -> Tensor:
        """Return what queries are compared with: image features [N, D].

        They have unit length where the cosine compares, and are as the encoder gives them where
        the fusion has a similarity of its own. They are no references: a fusion takes features of
        the length that the encoder gives them.

        Args:
            images: N images, as the references of ``encode_query``.

        Raises:
            ValueError: if images are no list or empty, an id is unknown, the encoder returns
                another shape than [N, D], or a feature is NaN or infinite.
            FileNotFoundError: naming a string that is no file.
        """
        with inference(self.encoder):
            gallery, _ = self._encode_images(images)
            dtype = torch.promote_types(self._dtype() or gallery.dtype, torch.float32)
            gallery = gallery.to(dtype)  # of queries
            if self.similarity is None:
                gallery = normalize(gallery)
        for row in non_finite_rows(gallery)[:1]:
            raise ValueError(
                f"image {row} ({shown_row(images, row)}) has features with NaN or infinity; check "
                "the image and the encoder"
            )
        return gallery

    def compose(
        self,
        image: Array,
        text: Array,
        text_counts: Tensor | None = None,
        *,
        image_tokens: Tokens | None = None,
        text_tokens: Tokens | None = None,
        reference_text: Tensor | None = None,
    ) -> Tensor:
        """Fuse features into queries, scaled to unit length if the cosine compares. Has gradients.

        The fusion gets those of the keywords that it names; the others change nothing.

        Args:
            image: [B, D] from ``encode_image``, not scaled to unit length; a tensor or an array.
            text: [B, T] from ``encode_text``, or [N, T] with text_counts.
            text_counts: int64 [B], each 1 at least, summing to N: the number of texts of each row,
                in order, whose features are averaged. Best on the CPU.
            image_tokens: B rows, from ``encode_image_tokens``.
            text_tokens: a row for each text, from ``encode_text_tokens``; those of several texts of
                an image are put one after another.
            reference_text: [B, T], text features of a prompt for each reference.

        Shape:
            [B, D], or [B, E] of a fusion with a similarity of its own; in the dtype of the fusion's
            weights where it has some, float32 at least.

        Raises:
            TypeError: if features, counts or what the fusion returns are no tensors.
            ValueError: if features are no rows of a floating dtype, texts, text_counts or tokens
                do not fit the images, the fusion lacks a keyword that it needs, or it returns
                another shape.
        """
        image = widen(check_features(as_tensor(image), "image"))
        text = widen(check_features(as_tensor(text), "text"))
        if text_counts is not None:
            check_text_counts(text_counts, len(image), len(text))
        elif len(text) != len(image):
            raise ValueError(
                f"{len(image)} images but {len(text)} texts: where a row has several texts, pass "
                "text_counts (a Batch has them)"
            )
        dtype = self._dtype()
        given = (image_tokens, text_tokens, reference_text)
        named = fusion_inputs(
            dict(zip(FUSION_KEYWORDS, given, strict=True)),
            self.fusion_keywords,
            self._needed,
            text_counts,
            len(image),
            dtype,
        )
        image, text = image.to(dtype), text.to(dtype)
        if text_counts is not None and len(text) != len(image):
            text = average_rows(text, text_counts)
        return self._checked(self.fusion(image, text, **named), image)

    def _checked(self, query: object, image: Tensor) -> Tensor:
        query = check_tensor(query, "what the fusion returns")
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
        image, image_tokens = encode_named(self.encoder, "image", self.fusion_keywords, images)
        text, text_tokens = encode_named(self.encoder, "text", self.fusion_keywords, texts)
        return self.compose(image, text, image_tokens=image_tokens, text_tokens=text_tokens)

    def _dtype(self) -> torch.dtype | None:
        """Return the dtype of the fusion's weights, as numpy's features are float64 by habit."""
        weights = self.fusion.parameters() if isinstance(self.fusion, nn.Module) else ()
        return next((weight.dtype for weight in weights if weight.is_floating_point()), None)

    def _encode_images(self, images: Images, keywords: Sequence[str] = ()) -> Encoded:
        device = device_of(self.encoder)
        if isinstance(images, Tensor):
            return self._encode("image", images.to(device), keywords)
        images = as_images("images", images)
        if not images:
            raise ValueError("expected a non-empty list of images, got []")
        lookup = lookups_of(self.encoder)
        if "image" in lookup:
            rows = lookup["image"](as_ids(images))
            return self._encode("image", rows.to(device), keywords)
        load_image = image_loader(self.encoder)
        if load_image is None:
            raise ValueError(
                f"{type(self.encoder).__name__} neither loads files nor looks ids up; "
                f"pass loaded images, as one tensor, instead of {shown(images[0])}"
            )
        blocks = load_given(images, load_image, _BATCH)
        return _joined(self._encode("image", block.to(device), keywords) for block in blocks)

    def _encode_texts(self, texts: Sequence[str], keywords: Sequence[str] = ()) -> Encoded:
        blocks = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
        return _joined(self._encode("text", block, keywords) for block in blocks)

    def _encode(
        self, side: str, inputs: Tensor | Sequence[str], keywords: Sequence[str]
    ) -> Encoded:
        features, tokens = encode_named(self.encoder, side, keywords, inputs)
        check_tensor(features, f"what encode_{side} returns")
        if features.ndim != 2 or len(features) != len(inputs):
            shape, rows = list(features.shape), len(inputs)
            raise ValueError(
                f"encode_{side} returned {shape} for {rows} inputs, expected [{rows}, D]"
            )
        return features, tokens

    def save(self, folder: str | Path) -> None:
        """Write a folder atomically; a model that was saved there before is replaced.

        ``weights.safetensors`` holds all weights, the encoder's included, ``config.json`` the
        classes and settings of both parts, the arguments of a fusion of ``fusecomp.fusions``, and
        checksums, ``README.md`` a model card, to which ``report.write_model_card`` adds scores.
        With a sharded encoder, every process must call it.

        Raises:
            OSError: if writing fails, or if a file, or a folder of other files, has this name.
            ValueError: if a part does not tell its settings, a weight is no dense tensor, or the
                card that is there was edited.
        """
        parts = describe_parts(self.encoder, self.fusion, arguments_of(self.fusion, _FUSIONS))
        doc = None if parts.arguments is None else _FUSIONS[parts.fusion].__doc__
        write_model(as_path("folder", folder), parts, self.state_dict(), doc)

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
        if fusion is None:
            fusion = saved.rebuild_fusion(_FUSIONS, device_of(encoder))
        model = cls(encoder, fusion)
        saved.copy_into(model, describe_parts(model.encoder, model.fusion))
        saved.warn_of_other_features(model.encoder)
        return model.eval()


_FUSIONS: dict[str, type[nn.Module]] = {name: vars(fusions)[name] for name in fusions.__all__}


def _joined(blocks: Iterable[Encoded]) -> Encoded:
    features, given = zip(*blocks, strict=True)
    tokens = [block for block in given if block is not None]
    return torch.cat(features), Tokens.cat(tokens) if tokens else None

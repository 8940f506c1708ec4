"""Features of a batch, by name: what a gradient cache keeps, and what a fusion takes."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from torch import Tensor

from fusecomp._core.abilities import encode_named
from fusecomp.types import SIDES, Batch, Encoder, Tokens


def encode_batch(
    encoder: Encoder,
    batch: Batch,
    keywords: Collection[str],
    run: Callable[[Callable[[Any], Any], object], Any],
) -> dict[str, Tensor]:
    """Encode references, texts and targets, and what else a fusion names, each by ``run``."""
    features: dict[str, Tensor] = {}
    for side, inputs in zip(SIDES, (batch.reference, batch.texts), strict=True):
        features[side], tokens = run(partial(encode_named, encoder, side, keywords), inputs)
        if tokens is not None:
            features |= {f"{side}_tokens": tokens.values, f"{side}_mask": tokens.mask}
    features["target"] = run(encoder.encode_image, batch.target)
    if batch.reference_texts is not None and "reference_text" in keywords:
        features["reference_text"] = run(encoder.encode_text, batch.reference_texts)
    return features


def compose_features(
    compose: Callable[..., Tensor], features: dict[str, Tensor], text_counts: Tensor
) -> Tensor:
    """Fuse what ``encode_batch`` has returned."""
    tokens = {
        f"{side}_tokens": Tokens(features[f"{side}_tokens"], features[f"{side}_mask"])
        for side in SIDES
        if f"{side}_tokens" in features
    }
    return compose(
        features["image"],
        features["text"],
        text_counts,
        **tokens,
        reference_text=features.get("reference_text"),
    )

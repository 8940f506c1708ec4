"""One round of a session: a reference image, a text or both, and the query that they give."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Union

from torch import Tensor

from fusecomp._core.abilities import encode_named, image_loader, lookups_of
from fusecomp._core.checks import as_text, has_half_character, is_blank, number, shown
from fusecomp._core.devices import device_of, inference
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import Array, check_finite, check_row, check_widths, widen
from fusecomp.images import load_given
from fusecomp.retrieval._gallery import Gallery
from fusecomp.types import Encoder, QueryModel, Tokens

if TYPE_CHECKING:
    from PIL.Image import Image

# An id, the path of a file, an image opened by Pillow, an array of pixels, or a loaded image.
Reference = Union[str, Path, Array, "Image"]


class Features(NamedTuple):
    """A reference of which only the features [1, D] are left."""

    values: Tensor


class Round(NamedTuple):
    """One round of a session: what was asked, and the query that it gives.

    ``reference`` is the id of the reference image, None where there is none or it has no id;
    ``text`` may be None; ``features`` [1, D] are those of the reference as the encoder gives them,
    or None; ``query`` [1, E] is that of this round alone.
    """

    reference: str | None
    text: str | None
    weight: float
    features: Tensor | None
    query: Tensor

    def __repr__(self) -> str:  # without the numbers, so that a history can be read
        return f"Round({self.reference!r}, {self.text!r}, weight={self.weight:g})"


def make_round(
    model: QueryModel,
    gallery: Gallery,
    reference: Reference | Features | None,
    text: str | None,
    weight: float,
) -> Round:
    """Encode what is asked, and compose its query."""
    weight = number("weight", weight)
    if model.similarity is not None and (reference is None) != (text is None):
        raise ValueError(
            f"{type(model.fusion).__name__} compares by a similarity of its own, which takes no "
            "image or text alone: give both"
        )
    features = words = tokens = None
    with inference(model.encoder, model.fusion):
        if reference is not None:
            features = _encode_reference(model.encoder, gallery, reference)
        if text is not None:
            text = as_text("text", text)
            words, tokens = _encode_text(model, text)
        if features is not None and words is not None:
            # A gallery may keep float64 of an encoder that gives float32.
            features = features.to(words.dtype)
            query = model.compose(features, words, text_tokens=tokens)
        elif features is not None:
            query = normalize(features)
        elif words is not None:
            check_widths(words, gallery.features, ("a text alone", "the images' features"))
            query = normalize(words)
        else:
            raise ValueError("a round needs a reference, a text or both")
    check_finite(query, "the query")
    query = query.to(gallery.features.device)
    known = reference if isinstance(reference, str) else None
    return Round(known, text, weight, features, query)


def _encode_text(model: QueryModel, text: str) -> tuple[Tensor, Tokens | None]:
    """Return the features [1, T] of a text, and its tokens, where the fusion names them."""
    if is_blank(text):
        raise ValueError(f"the text {text!r} says nothing: leave it out, or write one")
    if has_half_character(text):
        raise ValueError(f"the text holds half of a character, such as of an emoji: {text!a:.80}")
    try:
        features, tokens = encode_named(model.encoder, "text", model.fusion_keywords, [text])
    except ValueError as error:
        if "text" not in lookups_of(model.encoder):
            raise
        raise ValueError(
            f"{type(model.encoder).__name__} looks texts up and cannot encode {text!r}: make the "
            "session of a model with an encoder that can; the gallery may stay"
        ) from error
    return widen(check_row(features, "what encode_text returns", "[1, T]")), tokens


def _encode_reference(
    encoder: Encoder, gallery: Gallery, reference: Reference | Features
) -> Tensor:
    """Return the features [1, D] of a reference, as the encoder gives them."""
    device, look_up = device_of(encoder), lookups_of(encoder).get("image")
    if isinstance(reference, Features):
        return reference.values.to(device)
    if isinstance(reference, str):
        try:
            return gallery.features_of([reference]).to(device)
        except ValueError as error:
            if look_up is None:
                raise ValueError(f"{error}; pass a file as a pathlib.Path") from None
        inputs = look_up([reference])
    elif look_up is not None:
        raise ValueError(
            f"{type(encoder).__name__} looks images up, so the reference must be an id, got "
            f"{shown(reference)}; other images need a model whose encoder takes images"
        )
    else:
        inputs = _loaded(encoder, reference)
    features = encoder.encode_image(inputs.to(device))
    return widen(check_row(features, "what encode_image returns", "[1, D]"))


def _loaded(encoder: Encoder, reference: Union[Path, Array, "Image"]) -> Tensor:
    """Return the image as ``encode_image`` takes it."""
    if isinstance(reference, Tensor):
        return reference.detach().unsqueeze(0)
    load_image = image_loader(encoder)
    if load_image is None:
        raise ValueError(
            f"{type(encoder).__name__} has no load_image and cannot load {shown(reference)}: pass "
            "the image loaded, as encode_image takes it but without the batch axis"
        )
    return next(load_given([reference], load_image, 1))

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fusecomp._core.checks import no_class
from fusecomp._core.devices import device_of
from fusecomp._core.identity import fingerprint
from fusecomp.encoders._clip import PROBE, in_precision_of, require_work, side_by_parts
from fusecomp.encoders._cut import CutWarning
from fusecomp.encoders._one_at_a_time import one_at_a_time
from fusecomp.encoders._texts import list_of_texts
from fusecomp.encoders._towers import parameters_by_side
from fusecomp.images import ImageLoader, require_pillow, rgb

__all__ = ["TransformersEncoder"]

_TOKENIZER = "the model's own, as AutoTokenizer.from_pretrained(name) loads it"
_PROCESSOR = "the model's own, as AutoImageProcessor.from_pretrained(name) loads it"


class TransformersEncoder(nn.Module):
    """A CLIP or SigLIP of transformers as an encoder.

    It gives the features of the model's own ``get_image_features`` and ``get_text_features``, not
    normalised, in the model's precision. ``trainable="text"`` learns the text model and its
    projection, ``trainable="image"`` the vision model and its own; the scale and bias of the logits
    are never touched.

    Args:
        model: a ``CLIPModel``, a ``SiglipModel`` (also of SigLIP 2) or one alike, such as an
            ``AltCLIPModel`` or (with transformers 5) a ``ChineseCLIPModel``; transformers 4.57 to
            5.x.
        tokenizer: the model's own.
        image_processor: the model's own, for images from files. Not needed where images never
            come from files.

    Raises:
        TypeError: if the model has no ``get_image_features`` and ``get_text_features``; if the
            tokenizer gives no tokens, or the image processor no pixels, such as where the two are
            swapped; on a ``Siglip2Model``, whose images differ in shape.

    Example::

        model = CLIPModel.from_pretrained(name)
        encoder = TransformersEncoder(
            model, AutoTokenizer.from_pretrained(name), AutoImageProcessor.from_pretrained(name)
        )
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[..., Any],
        image_processor: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        _check(model, tokenizer, image_processor)
        self.model: Any = model
        self.tokenizer = tokenizer
        self.load_image: Callable[[Path], Tensor] | None
        self.load_image = (
            None if image_processor is None else ImageLoader(_Processed(image_processor))
        )
        self._cut = CutWarning()
        config: Any = model.config
        text: Any = getattr(config, "text_config", config)
        self._context = int(text.max_position_embeddings) - _unused_positions(model)
        self._vocabulary = int(text.vocab_size)

    @property
    def towers(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the parameters of each side."""
        return parameters_by_side(self, side_by_parts("vision_model", "visual_projection"))

    @property
    def output_dim(self) -> int:
        """D, the width of the features."""
        config = self.model.config
        width = getattr(config, "projection_dim", None) or config.vision_config.hidden_size
        return int(width)

    def encode_image(self, images: Tensor) -> Tensor:
        """Features [B, D] of processed images [B, 3, size, size], in the model's precision."""
        images = in_precision_of(getattr(self.model, "vision_model", self.model), images)
        return _features(self.model.get_image_features(pixel_values=images))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Features [B, D] of B strings; longer ones than the context are cut, with one warning.

        Raises:
            ValueError: if the texts are no list of strings or there are none, or if the tokenizer
                belongs to another model.
        """
        tokens = self._tokens(list_of_texts(texts))
        device = device_of(self.model)
        on_device = {name: value.to(device) for name, value in tokens.items()}
        return _features(self.model.get_text_features(**on_device))

    @one_at_a_time
    def _tokens(self, texts: list[str]) -> dict[str, Tensor]:
        # SigLIP has learnt with texts padded to the whole context, and without a mask.
        siglip = str(self.model.config.model_type).startswith("siglip")
        longest = min(self._context, getattr(self.tokenizer, "model_max_length", self._context))
        tokens = self.tokenizer(
            texts,
            padding="max_length" if siglip else True,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        )
        ids = tokens["input_ids"]
        if int(ids.max()) >= self._vocabulary:
            raise ValueError(
                f"the tokenizer gives token {int(ids.max())}, but the model knows "
                f"{self._vocabulary}: it belongs to another model"
            )
        if ids.shape[1] == longest:
            lengths = [len(row) for row in self.tokenizer(texts)["input_ids"]]
            self._cut([t for t, n in zip(texts, lengths, strict=True) if n > longest])
        kept = ("input_ids",) if siglip else ("input_ids", "attention_mask")
        return {name: tokens[name] for name in kept if name in tokens}

    def fingerprint(self) -> str:
        """Name weights, settings, tokenizer and preprocessing, for a feature cache."""
        return fingerprint(self)


@dataclass(frozen=True)
class _Processed:
    """An image processor as a transform of one image."""

    processor: Callable[..., Any]

    def __call__(self, image: Any) -> Tensor:
        # Processors expect RGB, and not all of them see to it.
        processed = self.processor(images=rgb(image), return_tensors="pt")
        pixels: Tensor = processed["pixel_values"][0]
        return pixels


def _features(output: Any) -> Tensor:
    """Transformers 4 returns a tensor, 5 a record whose ``pooler_output`` it is."""
    features = getattr(output, "pooler_output", output)
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = getattr(features, "shape", None)
        raise TypeError(
            f"model must give one vector for each input, got {type(features).__name__} of shape "
            f"{shape}; write an encoder of your own around it, as DualEncoder(image, text)"
        )
    return features


def _unused_positions(model: nn.Module) -> int:
    """The number of positions up to the padding's, behind which some text models begin."""
    for name, part in model.named_modules():
        padding = getattr(part, "padding_idx", None)
        if "position_embeddings" in name and padding is not None:
            return int(padding) + 1
    return 0


def _check(model: Any, tokenizer: Any, image_processor: Any) -> None:
    parts = {"model": model, "tokenizer": tokenizer, "image_processor": image_processor}
    for name, part in parts.items():
        no_class(name, part)
    for method in ("get_image_features", "get_text_features"):
        if not callable(getattr(model, method, None)):
            raise TypeError(
                f"model must be a CLIP or SigLIP of transformers, got {type(model).__name__}, "
                f"which has no {method}; for open_clip there is OpenClipEncoder"
            )
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, got {type(model).__name__}")
    config: Any = model.config
    if config.model_type == "siglip2":
        raise TypeError(
            "Siglip2Model takes images of any shape as patches, which make no batch here; the "
            "checkpoints of SigLIP 2 for one size load as SiglipModel"
        )
    for name, part in (("tokenizer", tokenizer), ("image_processor", image_processor)):
        if not callable(part) and not (name == "image_processor" and part is None):
            wanted = _TOKENIZER if name == "tokenizer" else _PROCESSOR
            raise TypeError(f"{name} must be callable, got {type(part).__name__}; pass {wanted}")
    if hasattr(tokenizer, "image_processor"):
        raise TypeError(
            f"tokenizer must be {_TOKENIZER}; a {type(tokenizer).__name__} holds both parts: pass "
            "its .tokenizer as tokenizer and its .image_processor as image_processor"
        )
    require_work("tokenizer", tokenizer, _TOKENIZER, lambda: _gives_tokens(tokenizer))
    if image_processor is not None:
        require_pillow()
        transform = _Processed(image_processor)
        require_work(
            "image_processor", image_processor, _PROCESSOR, lambda: _gives_pixels(transform)
        )


def _gives_tokens(tokenizer: Callable[..., Any]) -> bool:
    tokens = tokenizer([PROBE])
    return isinstance(tokens, Mapping) and "input_ids" in tokens


def _gives_pixels(transform: _Processed) -> bool:
    from PIL import Image

    return isinstance(transform(Image.new("RGB", (64, 64))), Tensor)

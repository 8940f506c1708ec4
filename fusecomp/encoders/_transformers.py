from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fusecomp._core.checks import no_class
from fusecomp._core.devices import device_of
from fusecomp._core.foreign import optional
from fusecomp._core.identity import fingerprint
from fusecomp.encoders._clip import (
    PROBE,
    check_model,
    check_part,
    check_vocabulary,
    clip_towers,
    in_precision_of,
)
from fusecomp.encoders._outputs import all_tokens, last_states, outputs_of
from fusecomp.encoders._tokenizing import TruncationWarning, list_of_texts, tokenizing
from fusecomp.images import ImageLoader, require_pillow, rgb
from fusecomp.types import LoadImage, Tokens

if TYPE_CHECKING:
    from PIL.Image import Image

_TOKENIZER = "the model's own, as AutoTokenizer.from_pretrained(name) loads it"
_PROCESSOR = "the model's own, as AutoImageProcessor.from_pretrained(name) loads it"


class TransformersEncoder(nn.Module):
    """A CLIP or SigLIP of transformers as an encoder.

    It gives the features of the model's own ``get_image_features`` and ``get_text_features``, not
    normalised, in the model's precision. The scale and bias of the logits do not learn. Tokens are
    the last hidden states behind the final norm, [B, L, W] before projection; those of a text end
    where its padding begins.

    Args:
        model: a ``CLIPModel``, a ``SiglipModel`` (also of SigLIP 2) or one alike, such as an
            ``AltCLIPModel`` or (with transformers 5) a ``ChineseCLIPModel``; transformers 4.57 to
            5.x.
        tokenizer: the model's own.
        image_processor: the model's own, for images from files. Not needed where images never
            come from files.

    Raises:
        TypeError: if the model lacks these two methods, the tokenizer gives no tokens or the image
            processor no pixels; on a ``Siglip2Model``, whose images differ in shape.

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
        processed = None if image_processor is None else _Processed(image_processor)
        self.load_image: LoadImage | None = None if processed is None else ImageLoader(processed)
        self._warn_of_truncated = TruncationWarning()
        config: Any = model.config
        text = optional(config, "text_config") or config
        self._context = int(text.max_position_embeddings) - _unused_positions(model)
        self._vocabulary = int(text.vocab_size)

    @property
    def towers(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the parameters of each side."""
        return clip_towers(self, "vision_model", "visual_projection")

    @property
    def output_dim(self) -> int:
        """D, the width of the features."""
        config = self.model.config
        width = optional(config, "projection_dim") or config.vision_config.hidden_size
        return int(width)

    def encode_image(self, images: Tensor) -> Tensor:
        """Return features [B, D] of images [B, 3, size, size], in the model's precision."""
        images = in_precision_of(optional(self.model, "vision_model", self.model), images)
        return _features(self.model.get_image_features(pixel_values=images))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return features [B, D] of B strings; too long ones are cut, with one warning.

        Raises:
            ValueError: if the texts are no list of strings or empty, or the tokenizer belongs to
                another model.
        """
        return self._encode_texts(texts)[0]

    def encode_image_tokens(self, images: Tensor) -> tuple[Tensor, Tokens]:
        """Return the features [B, D] of ``encode_image``, and tokens of the same pass."""
        tower = self.model.vision_model
        norm = optional(tower, "post_layernorm", nn.Identity())
        with outputs_of(tower) as records, outputs_of(norm) as normed:
            features = self.encode_image(images)
        states = last_states([optional(r, "last_hidden_state") for r in records], "image")
        if normed and all(output.ndim == 2 for output in normed):
            states = norm(states)  # CLIP normalises what it has pooled alone
        return features, all_tokens(states)

    def encode_text_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tokens]:
        """Return the features [B, D] of ``encode_text``, and tokens of the same pass."""
        with outputs_of(self.model.text_model) as records:
            features, mask = self._encode_texts(texts)
        states = last_states([optional(r, "last_hidden_state") for r in records], "text")
        return features, Tokens(states, mask.bool())

    def _encode_texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return features [B, D], and a mask of the tokens [B, L]."""
        tokens, mask = self._tokens(list_of_texts(texts))
        device = device_of(self.model)
        on_device = {name: value.to(device) for name, value in tokens.items()}
        return _features(self.model.get_text_features(**on_device)), mask.to(device)

    @tokenizing()
    def _tokens(self, texts: list[str]) -> tuple[dict[str, Tensor], Tensor]:
        # SigLIP has learnt with texts padded to the whole context, and without a mask.
        siglip = str(self.model.config.model_type).startswith("siglip")
        longest = min(self._context, optional(self.tokenizer, "model_max_length", self._context))
        tokens = self.tokenizer(
            texts,
            padding="max_length" if siglip else True,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        )
        ids = tokens["input_ids"]
        check_vocabulary(ids, self._vocabulary)
        if ids.shape[1] == longest:
            lengths = [len(row) for row in self.tokenizer(texts)["input_ids"]]
            self._warn_of_truncated([t for t, n in zip(texts, lengths, strict=True) if n > longest])
        kept = ("input_ids",) if siglip else ("input_ids", "attention_mask")
        # A tokenizer without a mask pads with what the model reads.
        mask = tokens.get("attention_mask", torch.ones_like(ids))
        return {name: tokens[name] for name in kept if name in tokens}, mask

    def fingerprint(self) -> str:
        """Name weights, settings, tokenizer and preprocessing, for a feature cache."""
        return fingerprint(self)


@dataclass(frozen=True)
class _Processed:
    """An image processor as a transform of one image."""

    processor: Callable[..., Any]

    def __call__(self, image: "Image") -> Tensor:
        # Processors expect RGB, and not all of them see to it.
        processed = self.processor(images=rgb(image), return_tensors="pt")
        pixels: Tensor = processed["pixel_values"][0]
        return pixels


def _features(output: object) -> Tensor:
    """Transformers 4 returns a tensor, 5 a record whose ``pooler_output`` it is."""
    features = optional(output, "pooler_output", output)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise TypeError(
            f"model must give one vector for each input, got {type(features).__name__} of shape "
            f"{optional(features, 'shape')}; write an encoder of your own around it, as "
            "DualEncoder(image, text)"
        )
    return features


def _unused_positions(model: nn.Module) -> int:
    """Return the number of positions up to the padding's, behind which some text models begin."""
    for name, part in model.named_modules():
        if "position_embeddings" in name and optional(part, "padding_idx") is not None:
            return int(optional(part, "padding_idx")) + 1
    return 0


def _check(model: object, tokenizer: object, image_processor: object) -> None:
    parts = {"model": model, "tokenizer": tokenizer, "image_processor": image_processor}
    for name, part in parts.items():
        no_class(name, part)
    methods = "get_image_features", "get_text_features"
    others = "for open_clip use OpenClipEncoder"
    check_model(model, methods, "a CLIP or SigLIP of transformers", others)
    if optional(optional(model, "config"), "model_type") == "siglip2":
        raise TypeError(
            "Siglip2Model takes images of any shape as patches, which make no batch here; the "
            "checkpoints of SigLIP 2 for one size load as SiglipModel"
        )
    if optional(tokenizer, "image_processor") is not None:
        raise TypeError(
            f"tokenizer must be {_TOKENIZER}; a {type(tokenizer).__name__} holds both parts: pass "
            "its .tokenizer as tokenizer and its .image_processor as image_processor"
        )
    check_part("tokenizer", tokenizer, _TOKENIZER, _gives_tokens)
    if image_processor is not None:
        require_pillow()
        check_part("image_processor", image_processor, _PROCESSOR, _gives_pixels)


def _gives_tokens(tokenizer: Callable[..., object]) -> bool:
    tokens = tokenizer([PROBE])
    return isinstance(tokens, Mapping) and "input_ids" in tokens


def _gives_pixels(image_processor: Callable[..., Any]) -> bool:
    from PIL import Image

    return isinstance(_Processed(image_processor)(Image.new("RGB", (64, 64))), Tensor)

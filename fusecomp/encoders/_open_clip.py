import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from fusecomp._core.checks import as_path
from fusecomp._core.files import write_tensors
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
from fusecomp.encoders._clip4cir import build_clip, read_clip4cir
from fusecomp.encoders._outputs import all_tokens, last_states, outputs_of
from fusecomp.encoders._tokenizing import TruncationWarning, list_of_texts, tokenizing
from fusecomp.encoders._without_padding import encode_without_padding
from fusecomp.images import ImageLoader, TargetPad, clip_transform
from fusecomp.types import LoadImage, Tokens

_TOKENIZER = (
    "a function from a list of strings to a tensor of tokens [B, context], such as "
    "open_clip.get_tokenizer(name) or clip.tokenize"
)
_PREPROCESS = (
    "a function from a PIL image to a tensor, such as the one that "
    "open_clip.create_model_and_transforms returns with the model"
)


class OpenClipEncoder(nn.Module):
    """A CLIP of open_clip, or of OpenAI's ``clip``, as an encoder.

    It gives the features of the model's own ``encode_image`` and ``encode_text``, in the model's
    precision; only a CoCa normalises them. The scale of the logits does not learn. Tokens are the
    last hidden states behind the final norm, [B, L, W] before projection: of a text up to its end,
    of an image with the class token first. Only towers of open_clip's own transformers have them.

    Args:
        model: as ``open_clip.create_model`` or ``clip.load`` return it; its towers may be of timm
            or transformers.
        tokenizer: as ``open_clip.get_tokenizer`` returns it, or ``clip.tokenize``.
        preprocess: PIL image -> tensor, such as the one that comes with the model, or
            ``fusecomp.images.clip_transform(size, TargetPad())``. Not needed where images never
            come from files.

    Raises:
        TypeError: if the model has no ``encode_image`` and ``encode_text``, the tokenizer makes no
            tensor of a list of strings, or the preprocessing cannot be called or is a tokenizer.

    Example::

        model, _, preprocess = open_clip.create_model_and_transforms("RN50x4-quickgelu", "openai")
        encoder = OpenClipEncoder(model, open_clip.get_tokenizer("RN50x4"), preprocess)
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[..., Tensor],
        preprocess: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__()
        _check(model, tokenizer, preprocess)
        self.model: Any = model
        self.tokenizer = tokenizer
        self.load_image: LoadImage | None = None if preprocess is None else ImageLoader(preprocess)
        self._warn_of_truncated = TruncationWarning()

    @property
    def towers(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the parameters of each side."""
        return clip_towers(self, "visual")

    @property
    def output_dim(self) -> int:
        """D, the width of the features."""
        for tower in (self.model.visual, optional(self.model, "text")):
            if (width := optional(tower, "output_dim")) is not None:
                return int(width)
        # Towers of timm do not know it.
        projection = self.model.text_projection
        if projection is None:
            return int(self.model.token_embedding.embedding_dim)
        linear = isinstance(projection, nn.Linear)
        return int(projection.out_features if linear else projection.shape[1])

    def encode_image(self, images: Tensor) -> Tensor:
        """Return features [B, D] of images [B, 3, size, size], in the model's precision."""
        images = in_precision_of(optional(self.model, "visual", self.model), images)
        features: Tensor = self.model.encode_image(images)
        return features

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return features [B, D] of B strings; too long ones are cut, with one warning.

        Raises:
            ValueError: if the texts are no list of strings or empty, or the tokenizer belongs to
                another model.
        """
        return encode_without_padding(self.model, self._tokens(list_of_texts(texts)))

    @property
    def token_sides(self) -> list[str]:
        """The sides whose tower is a transformer with a final norm."""
        norms = {"image": self._image_norm, "text": self._text_norm}
        return [side for side, norm in norms.items() if norm is not None]

    def encode_image_tokens(self, images: Tensor) -> tuple[Tensor, Tokens]:
        """Return the features [B, D] of ``encode_image``, and tokens of the same pass."""
        with outputs_of(self._image_norm) as outputs:
            features = self.encode_image(images)
        return features, all_tokens(last_states(outputs, "image"))

    def encode_text_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tokens]:
        """Return the features [B, D] of ``encode_text``, and tokens of the same pass."""
        tokens = self._tokens(list_of_texts(texts))
        with outputs_of(self._text_norm) as outputs:
            features = encode_without_padding(self.model, tokens)
        states = last_states(outputs, "text")
        mask = self._is_token(tokens)[:, : states.shape[1]]
        return features, Tokens(states, mask.to(states.device))

    @property
    def _image_norm(self) -> Any:
        visual = optional(self.model, "visual")
        # These pool before the last norm.
        pools = optional(visual, "attn_pool") or optional(visual, "final_ln_after_pool", False)
        return None if pools else optional(visual, "ln_post")

    @property
    def _text_norm(self) -> Any:
        text = optional(self.model, "text", self.model)
        return None if optional(text, "cls_emb") is not None else optional(text, "ln_final")

    @tokenizing()
    def _is_token(self, tokens: Tensor) -> Tensor:
        """Return which positions [B, L] are no padding: the first, up to the last that differs."""
        padding = self.tokenizer([""])[0].mode().values
        is_token = (tokens != padding).flip(1).cummax(1).values.flip(1)
        is_token[:, 0] = True
        return is_token

    @tokenizing()
    def _tokens(self, texts: list[str]) -> Tensor:
        try:
            tokens = self.tokenizer(texts)
            cut = self._cut_texts(texts, tokens)
        except RuntimeError as error:  # clip.tokenize refuses long texts unless told to cut
            if "too long" not in str(error):
                raise
            tokens = self.tokenizer(texts, truncate=True)
            cut = texts
        self._check_tokens(tokens)
        self._warn_of_truncated(cut)
        return tokens

    def _cut_texts(self, texts: list[str], tokens: Tensor) -> list[str]:
        if optional(self.tokenizer, "context_length") is None:  # none of open_clip's, which all cut
            return []
        empty = self.tokenizer([""])[0]
        padding, last = empty.mode().values, empty[-1]
        # A text that is cut fills its row, at most up to an end that is also the padding.
        full = (tokens[:, -2:] != padding).any(1).nonzero().flatten().tolist()
        if not full:
            return []
        # A longer row has one more padding, and the same end, where nothing was cut.
        longer = self.tokenizer([texts[row] for row in full], context_length=tokens.shape[1] + 1)
        more = (longer == padding).sum(1) > (tokens[full] == padding).sum(1)
        cut = ~more | (longer[:, -1] != last)
        return [texts[row] for row, is_cut in zip(full, cut.tolist(), strict=True) if is_cut]

    def _check_tokens(self, tokens: Tensor) -> None:
        text = optional(self.model, "text", self.model)  # a tower of its own, or the CLIP itself
        embedding = optional(text, "token_embedding")
        if embedding is None:  # a tower of transformers, which reads shorter rows too
            check_vocabulary(tokens, optional(text, "vocab_size") or None)
            return
        context = optional(text, "context_length")
        if context is not None and tokens.shape[1] != context:
            raise ValueError(
                f"the tokenizer makes {tokens.shape[1]} tokens of each text, but the model reads "
                f"{context}: it belongs to another model"
            )
        check_vocabulary(tokens, embedding.num_embeddings)

    def fingerprint(self) -> str:
        """Name weights, settings, tokenizer and preprocessing, for a feature cache."""
        tokens = str(self.tokenizer([PROBE]).tolist()).encode()
        return f"{fingerprint(self)}; tokens {hashlib.sha256(tokens).hexdigest()[:16]}"

    @classmethod
    def from_clip4cir(
        cls, path: str | Path, preprocess: Callable[[Any], Tensor] | None = None
    ) -> Self:
        """Build the CLIP of a published checkpoint ``{"epoch": ..., "CLIP": weights}``.

        All sizes are taken from the weights; the activation is QuickGELU. Needs open_clip.

        Args:
            path: the checkpoint.
            preprocess: by default the published one, ``clip_transform(size, TargetPad(1.25))``.

        Raises:
            TypeError: if the path is none.
            FileNotFoundError: if there is no such file.
            ValueError: if the file is torn, unsafe, or holds no CLIP.
            ImportError: without open_clip.
        """
        path = as_path("path", path)
        model, size = build_clip(read_clip4cir(path), path)
        import open_clip

        tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
        return cls(model, tokenizer, preprocess or clip_transform(size, TargetPad(1.25)))

    def save_clip4cir(self, path: str | Path, epoch: int = 0) -> None:
        """Write a checkpoint that the published code loads into an equal model.

        Raises:
            TypeError: if the path is none.
            ValueError: if the model does not have the layout of OpenAI's.
        """
        path = as_path("path", path)
        weights = {name: t.detach().cpu() for name, t in self.model.state_dict().items()}
        if "text_projection" not in weights or "positional_embedding" not in weights:
            raise ValueError(
                f"{type(self.model).__name__} has another layout than OpenAI's CLIP, which is the "
                "only one that the published code loads; use ComposedEncoder.save"
            )
        write_tensors(path, {"epoch": epoch, "CLIP": weights})


def _check(model: object, tokenizer: object, preprocess: object) -> None:
    methods, others = ("encode_image", "encode_text"), "for transformers use TransformersEncoder"
    check_model(model, methods, "a CLIP of open_clip or clip", others)
    if preprocess is not None:
        check_part("preprocess", preprocess, _PREPROCESS)
    check_part("tokenizer", tokenizer, _TOKENIZER, lambda part: isinstance(part([PROBE]), Tensor))
    # Tokenizers of open_clip have the one, parts of transformers the other.
    if any(optional(preprocess, name) for name in ("context_length", "model_input_names")):
        raise TypeError(f"preprocess must be {_PREPROCESS}; got {type(preprocess).__name__}")

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fusecomp._core.checks import no_class
from fusecomp._core.devices import device_of
from fusecomp._core.foreign import optional
from fusecomp.encoders._tokenizing import TruncationWarning, list_of_texts, tokenizing
from fusecomp.types import Tokens


class SentenceTransformersText(nn.Module):
    """A text encoder of sentence-transformers, as the text side of a ``DualEncoder``.

    It gives the features of the model's own ``encode``, with gradients where it learns: behind the
    model's default prompt and cut to its ``truncate_dim``, where it has these.

    Args:
        model: a ``SentenceTransformer``; sentence-transformers 5.1 to 6.x.

    Raises:
        TypeError: if it is none.

    Example::

        text = SentenceTransformersText(SentenceTransformer("all-MiniLM-L6-v2"))
        encoder = DualEncoder(vision, text, load_image, image_dim=768, dim=512)
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        no_class("model", model)
        if not isinstance(model, nn.Module) or optional(model, "prompts") is None:
            raise TypeError(
                f"model must be a SentenceTransformer, got {type(model).__name__}; any other "
                "module that takes a list of strings fits a DualEncoder as it is"
            )
        self.model: Any = model
        self._warn_of_truncated = TruncationWarning()

    @property
    def output_dim(self) -> int:
        """The width of the features."""
        # Renamed in version 5.4; the old name warns.
        new = optional(self.model, "get_embedding_dimension")
        width = new() if new else self.model.get_sentence_embedding_dimension()
        if width is None:
            raise ValueError("model does not know the width of its features: pass text_dim=...")
        return int(width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return features [B, D] of B strings; those that are too long are cut, with one warning.

        Raises:
            ValueError: if the texts are no list of strings, or there are none.
        """
        return self._run(texts)[0]

    def encode_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tokens]:
        """Return features [B, D] of B strings, and the model's own ``token_embeddings``.

        Raises:
            ValueError: as above, or if the model has none, as a static embedding.
        """
        features, output = self._run(texts)
        values, mask = output.get("token_embeddings"), output.get("attention_mask")
        if values is None or mask is None:
            raise ValueError("model gives no token_embeddings: a fusion on tokens needs another")
        there = mask.bool()
        # Some tokenizers pad on the left.
        return features, Tokens.unpack(values[there], there.sum(dim=1))

    def _run(self, texts: Sequence[str]) -> tuple[Tensor, dict[str, Any]]:
        texts = list_of_texts(texts)
        prompt = self.model.prompts.get(self.model.default_prompt_name) or ""
        tokens = self._tokens(texts, prompt)
        self._warn([prompt + text for text in texts], tokens)
        device = device_of(self.model)
        on_device = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in tokens.items()}
        output = self.model(on_device)
        features: Tensor = output["sentence_embedding"]
        return features[:, : self.model.truncate_dim], output

    @tokenizing()
    def _tokens(self, texts: list[str], prompt: str) -> dict[str, Any]:
        preprocess = optional(self.model, "preprocess")
        if preprocess is not None:  # since version 5.4
            tokens: dict[str, Any] = preprocess(texts, prompt=prompt)
            return tokens
        tokens = self.model.tokenize([prompt + text for text in texts])
        # Some models leave the prompt out of their mean.
        length = self.model._get_prompt_length(prompt) if prompt else None
        return tokens if length is None else {**tokens, "prompt_length": length}

    @tokenizing()
    def _warn(self, texts: list[str], tokens: dict[str, Any]) -> None:
        reader = self.model._first_module()
        if routes := optional(reader, "sub_modules"):  # a Router, encode takes the default route
            reader = routes[reader.default_route][0]
        ids, longest = tokens.get("input_ids"), optional(reader, "max_seq_length")
        if ids is None or longest is None or ids.shape[-1] < longest:
            return
        if callable(reader.tokenizer):
            lengths = [len(row) for row in reader.tokenizer(text=texts)["input_ids"]]
        else:  # a tokenizer of words
            lengths = [len(reader.tokenizer.tokenize(text)) for text in texts]
        self._warn_of_truncated([t for t, n in zip(texts, lengths, strict=True) if n > longest])

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fusecomp.encoders._cut import CutWarning
from fusecomp.modules import device_of

__all__ = ["SentenceTransformersText"]


class SentenceTransformersText(nn.Module):
    """A text encoder of sentence-transformers, as the text side of a ``DualEncoder``.

    It gives the features of the model's own ``encode``, with gradients where it learns.

    Args:
        model: a ``SentenceTransformer``.

    Raises:
        TypeError: if it is none.

    Example::

        text = SentenceTransformersText(SentenceTransformer("all-MiniLM-L6-v2"))
        encoder = DualEncoder(image=vision, text=text, load=load, image_dim=768, dim=512)
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, nn.Module) or not hasattr(model, "max_seq_length"):
            raise TypeError(
                f"model must be a SentenceTransformer, got {type(model).__name__}; any other "
                "module that takes a list of strings can stand in a DualEncoder as it is"
            )
        self.model: Any = model
        self._cut = CutWarning()

    @property
    def output_dim(self) -> int:
        """The width of the features."""
        # Renamed in version 5.4; the old name warns.
        new = getattr(self.model, "get_embedding_dimension", None)
        return int(new() if new else self.model.get_sentence_embedding_dimension())

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Features [B, D] of B strings; those that are too long are cut, with one warning."""
        texts = list(texts)
        tokenize = getattr(self.model, "preprocess", None) or self.model.tokenize
        tokens = tokenize(texts)
        self._warn(texts, tokens)
        device = device_of(self.model)
        on_device = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in tokens.items()}
        features: Tensor = self.model(on_device)["sentence_embedding"]
        return features

    def _warn(self, texts: list[str], tokens: Any) -> None:
        ids, longest = tokens.get("input_ids"), self.model.max_seq_length
        if ids is None or longest is None or ids.shape[1] < longest:
            return
        lengths = [len(row) for row in self.model.tokenizer(texts)["input_ids"]]
        self._cut([t for t, n in zip(texts, lengths, strict=True) if n > longest])

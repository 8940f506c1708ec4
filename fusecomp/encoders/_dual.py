from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fusecomp._core.checks import no_class, whole_number
from fusecomp._core.foreign import optional
from fusecomp._core.identity import class_name, fingerprint
from fusecomp.encoders._parameters_by_side import parameters_by_side
from fusecomp.encoders._tokenizing import list_of_texts
from fusecomp.types import Tokens


class DualEncoder(nn.Module):
    """An encoder from any two callables or modules, one for images and one for texts.

    Without ``dim`` the sides keep their widths, image features [B, D] and text features [B, T].
    With it, a side of another width gets a linear head without bias, which learns whenever a tower
    learns. Parameters that are frozen when a trainer is made stay frozen.

    Args:
        image: loaded images [B, ...] -> features [B, D].
        text: a list of B strings -> features [B, T]; it tokenises itself. A side that has a method
            ``encode_tokens`` -> (features, ``types.Tokens``) gives tokens too, in their own width.
        load_image: path -> tensor, one image as ``image`` takes it, without the batch dimension.
            Picklable, as it runs in worker processes. Not needed where images never come from
            files.
        image_dim: the width of the images' features, where ``image.output_dim`` does not tell.
        text_dim: the width of the texts' features, likewise.
        dim: a common width for both sides; None keeps the widths that they have.

    Raises:
        TypeError: if a side cannot be called, is a class, or is a bare ``SentenceTransformer``.
        ValueError: if a width that a head needs is unknown, or one is no positive whole number.

    Example:
        >>> import torch
        >>> bag = torch.nn.EmbeddingBag(128, 4)
        >>> def embed(texts):
        ...     tokens = [torch.tensor([ord(letter) % 128 for letter in t]) for t in texts]
        ...     return torch.cat([bag(row.unsqueeze(0)) for row in tokens])
        >>> encoder = DualEncoder(
        ...     image=torch.nn.Linear(9, 6), text=embed, image_dim=6, text_dim=4, dim=4
        ... )
        >>> encoder.encode_image(torch.ones(2, 9)).shape, encoder.encode_text(["blue"]).shape
        (torch.Size([2, 4]), torch.Size([1, 4]))
        >>> list(encoder.heads)
        ['image']
    """

    def __init__(
        self,
        image: Callable[[Any], Tensor],
        text: Callable[[Any], Tensor],
        load_image: Callable[[Path], Tensor] | None = None,
        *,
        image_dim: int | None = None,
        text_dim: int | None = None,
        dim: int | None = None,
    ) -> None:
        super().__init__()
        for name, part in (("image", image), ("text", text), ("load_image", load_image)):
            no_class(name, part)
            if not callable(part) and not (name == "load_image" and part is None):
                raise TypeError(f"{name} must be callable, got {type(part).__name__}")
        if isinstance(text, nn.Module) and optional(text, "prompts") is not None:
            raise TypeError(
                f"text must take a list of strings, but {type(text).__name__} takes tokens: pass "
                "text=fusecomp.encoders.SentenceTransformersText(model)"
            )
        self.image = image
        self.text = text
        self.load_image = load_image
        image_dim, text_dim, dim = (
            None if width is None else whole_number(name, width, 1)
            for name, width in (("image_dim", image_dim), ("text_dim", text_dim), ("dim", dim))
        )
        self.heads = nn.ModuleDict()
        for side, part, width in (("image", image, image_dim), ("text", text, text_dim)):
            if dim is not None and (head := _head(side, part, width, dim)) is not None:
                self.heads[side] = head

    @property
    def towers(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the parameters of each side, and of the heads."""
        by_side = parameters_by_side(self, lambda name: name.split(".")[0])
        return {"image": (), "text": (), "heads": (), **by_side}

    def encode_image(self, images: Any) -> Tensor:
        """Return features [B, D] of loaded images."""
        return self._headed("image", self.encode_tower("image", images))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return features [B, T] of B strings."""
        return self._headed("text", self.encode_tower("text", texts))

    @property
    def token_sides(self) -> list[str]:
        """The sides that give tokens."""
        parts = {"image": self.image, "text": self.text}
        return [side for side, part in parts.items() if optional(part, "encode_tokens") is not None]

    def encode_image_tokens(self, images: Any) -> tuple[Tensor, Tokens]:
        """Return features [B, D] of loaded images, and tokens, by ``image.encode_tokens``."""
        return self._encode_tokens("image", images)

    def encode_text_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tokens]:
        """Return features [B, T] of B strings, and tokens, by ``text.encode_tokens``."""
        return self._encode_tokens("text", texts)

    def _encode_tokens(self, side: str, inputs: Any) -> tuple[Tensor, Tokens]:
        part = self.image if side == "image" else self.text
        if (encode := optional(part, "encode_tokens")) is None:
            raise ValueError(
                f"the {side} side of this DualEncoder gives no tokens: {class_name(part)} needs a "
                "method encode_tokens(inputs) -> (features, Tokens)"
            )
        features, tokens = encode(_checked(side, inputs))
        return self._headed(side, features), tokens

    def encode_tower(self, side: str, inputs: Any) -> Tensor:
        """Return features below the head of a side (``"image"``, ``"text"``), in its own width.

        Raises:
            TypeError: if the side returns no tensor.
            ValueError: if texts are neither a tensor nor a list of strings, or there are none.
        """
        encode = self.image if side == "image" else self.text
        features = encode(_checked(side, inputs))
        if not isinstance(features, Tensor):
            kind = type(features).__name__
            raise TypeError(f"the {side} side must return a tensor [B, D], got {kind}")
        return features

    def _headed(self, side: str, features: Tensor) -> Tensor:
        if side not in self.heads:
            return features
        head: Any = self.heads[side]
        if features.ndim != 2 or features.shape[1] != head.in_features:
            raise ValueError(
                f"the {side} side returned {list(features.shape)}, but its head was made for "
                f"[B, {head.in_features}]; give the right {side}_dim"
            )
        projected: Tensor = head(features.to(head.weight.dtype))
        return projected

    def fingerprint(self) -> str:
        """Name all weights and settings, and ``load_image``, for a feature cache.

        Raises:
            ValueError: if a side is no module, so that nothing tells whether it has changed.
        """
        for name, part in (("image", self.image), ("text", self.text)):
            if not isinstance(part, nn.Module):
                kind = "a plain callable"
                raise ValueError(f"the {name} side is {kind}: give the cache a key of your own")
        return fingerprint(self)


def _checked(side: str, inputs: Any) -> Any:
    # A text side of your own may take tokens.
    return list_of_texts(inputs) if side == "text" and not isinstance(inputs, Tensor) else inputs


def _head(side: str, part: object, width: int | None, dim: int) -> nn.Linear | None:
    """Return the head of a side that has another width than ``dim``."""
    known = optional(part, "output_dim")
    if width is None and isinstance(known, Integral):
        width = int(known)
    if width is None:
        raise ValueError(f"dim={dim} needs the width of the {side} side: pass {side}_dim=...")
    return None if width == dim else nn.Linear(width, dim, bias=False)

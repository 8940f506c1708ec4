from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fusecomp.modules import fingerprint

__all__ = ["DualEncoder"]


class DualEncoder(nn.Module):
    """An encoder from any two callables or modules, one for pictures and one for texts.

    Args:
        image: loaded pictures [B, ...] -> features [B, D].
        text: a list of B strings -> features [B, D]; it tokenises itself.
        load: path -> tensor, one picture as ``image`` takes it, without the batch dimension.
            Picklable (a function at module level, or an object of one), as it runs in worker
            processes. Not needed where pictures never come from files.

    Raises:
        TypeError: if one of them cannot be called.

    Example:
        >>> import torch
        >>> bag = torch.nn.EmbeddingBag(128, 4)
        >>> def embed(texts):
        ...     tokens = [torch.tensor([ord(letter) % 128 for letter in t]) for t in texts]
        ...     return torch.cat([bag(row.unsqueeze(0)) for row in tokens])
        >>> encoder = DualEncoder(image=torch.nn.Linear(9, 4), text=embed)
        >>> encoder.encode_image(torch.ones(2, 9)).shape, encoder.encode_text(["blue"]).shape
        (torch.Size([2, 4]), torch.Size([1, 4]))
    """

    def __init__(
        self,
        image: Callable[[Any], Tensor],
        text: Callable[[Any], Tensor],
        load: Callable[[Path], Tensor] | None = None,
    ) -> None:
        super().__init__()
        for name, part in (("image", image), ("text", text)):
            if not callable(part):
                raise TypeError(f"{name} must be callable, got {type(part).__name__}")
        if load is not None and not callable(load):
            raise TypeError(f"load must be callable, got {type(load).__name__}")
        self.image = image
        self.text = text
        self.load = load

    @property
    def towers(self) -> Mapping[str, tuple[str, ...]]:
        """The name patterns of each side's parameters."""
        return {"image": ("image.*",), "text": ("text.*",)}

    def encode_image(self, images: Any) -> Tensor:
        """Features [B, D] of loaded pictures."""
        return self.image(images)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Features [B, D] of B strings."""
        return self.text(texts)

    def fingerprint(self) -> str:
        """A hash of all weights, which names a feature cache.

        Raises:
            ValueError: if a side is no module, so that nothing tells whether it has changed.
        """
        for name in ("image", "text"):
            if not isinstance(getattr(self, name), nn.Module):
                raise ValueError(
                    f"the {name} side is a plain callable: give the cache a key of your own"
                )
        return fingerprint(self.state_dict().items())

"""What the adapters of CLIP share."""

import hashlib
from collections.abc import Callable

from torch import Tensor

__all__ = ["PROBE", "probe_hash", "side_by_parts"]

# Its tokens tell one tokenizer from another.
PROBE = "a red dress, sleeveless and long"
# No feature depends on them: learning must not wait for their gradients.
_UNUSED = ("logit_scale", "logit_bias")


def side_by_parts(*image_parts: str) -> Callable[[str], str | None]:
    """For ``parameters_by_side``: the image side has a part of such a name, all else is text."""

    def side_of(name: str) -> str | None:
        parts = name.split(".")
        if parts[-1] in _UNUSED:
            return None
        return "text" if set(image_parts).isdisjoint(parts) else "image"

    return side_of


def probe_hash(tokens: Tensor) -> str:
    """Hash what a tokenizer makes of ``PROBE``."""
    return hashlib.sha256(str(tokens.tolist()).encode()).hexdigest()[:16]

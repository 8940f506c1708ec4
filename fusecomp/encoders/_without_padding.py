from copy import copy
from typing import Any

from torch import Tensor

from fusecomp._core.devices import device_of
from fusecomp._core.foreign import optional


def encode_without_padding(model: Any, tokens: Tensor) -> Tensor:
    """Return ``model.encode_text(tokens)``, where it can be without the padding behind all texts.

    In a CLIP of open_clip a token sees only those before it, so that padding costs time and changes
    nothing. The model may wrap the CLIP, as peft and ``torch.compile`` do.
    """
    device = device_of(model)
    clip = optional(model.encode_text, "__self__")
    length = int(tokens.argmax(dim=1).max()) + 1
    if _is_causal_clip(clip, length):
        tokens, encode = tokens[:, :length], _shorter(clip, length).encode_text
    else:
        encode = model.encode_text
    features: Tensor = encode(tokens.to(device))
    return features


def _is_causal_clip(clip: Any, length: int) -> bool:
    # A subclass, or a method that somebody has replaced, may read its tokens in another way.
    return (
        (type(clip).__module__, type(clip).__name__) == ("open_clip.model", "CLIP")
        and "encode_text" not in vars(clip)
        and clip.attn_mask is not None
        and clip.text_pool_type == "argmax"
        and bool(clip.attn_mask[:length, length:].isneginf().all())
    )


def _shorter(clip: Any, length: int) -> Any:
    """Return a CLIP of fewer positions with the same weights; the one that threads share stays."""
    shorter = copy(clip)
    positions, mask = clip.positional_embedding[:length], clip.attn_mask[:length, :length]
    shorter._parameters = {**clip._parameters, "positional_embedding": positions}
    shorter._buffers = {**clip._buffers, "attn_mask": mask}
    return shorter

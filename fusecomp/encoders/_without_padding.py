from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

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
    features: Tensor
    if _is_causal_clip(clip, length):
        shorter = {
            "clip.positional_embedding": clip.positional_embedding[:length],
            "clip.attn_mask": clip.attn_mask[:length, :length],
        }
        features = functional_call(_TextSide(clip), shorter, tokens[:, :length].to(device))
    else:
        features = model.encode_text(tokens.to(device))
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


class _TextSide(nn.Module):
    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip: Any = clip

    def forward(self, tokens: Tensor) -> Tensor:
        features: Tensor = self.clip.encode_text(tokens)
        return features

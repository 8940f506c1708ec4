"""OpenAI's CLIP, of any size, from nothing but its weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusecomp._core.files import read_tensors
from fusecomp._core.weights import check_weights, count_parts, without_wrappers

# All of OpenAI's models divide a width by it to get the number of attention heads.
_HEAD_WIDTH = 64
# Entries of the archives that OpenAI publishes, which are no weights.
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


def read_clip4cir(path: Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint ``{"epoch": ..., "CLIP": weights}``."""
    weights = read_tensors(path).get("CLIP")
    if not isinstance(weights, dict):
        raise ValueError(f'{path} holds no "CLIP" weights: not a published checkpoint')
    weights = without_wrappers(weights)
    return {name: tensor for name, tensor in weights.items() if name not in _NO_WEIGHTS}


def build_clip(weights: Mapping[str, Tensor], path: Path) -> tuple[Any, int]:
    """Return a CLIP of open_clip in float32 with these weights, and the size of its images."""
    try:
        from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
    except ImportError as error:
        raise ImportError('this needs open_clip: pip install "fusecomp[clip]"') from error
    where = f"{path} holds no complete CLIP"
    try:
        vision = _vision_sizes(weights)
        sizes = (
            weights["text_projection"].shape[1],
            CLIPVisionCfg(**vision),
            CLIPTextCfg(**_text_sizes(weights)),
        )
        with torch.device("meta"):
            expected = CLIP(*sizes).state_dict()
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{where}: {error}") from error
    check_weights(where, weights, expected)
    model: nn.Module = CLIP(*sizes, quick_gelu=True)
    model.load_state_dict(weights)
    return model.eval(), vision["image_size"]


def _vision_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    if "visual.proj" in weights:
        width, _, _, patch = weights["visual.conv1.weight"].shape
        positions = weights["visual.positional_embedding"]
        layers: Any = count_parts(weights, "visual.transformer.resblocks.")
        scale, sizes = patch, {"patch_size": patch}
    else:
        width = weights["visual.layer1.0.conv1.weight"].shape[0]
        positions = weights["visual.attnpool.positional_embedding"]
        layers = tuple(count_parts(weights, f"visual.layer{stage}.") for stage in (1, 2, 3, 4))
        scale, sizes = 32, {}  # a ResNet halves the image five times before its attention pool
    # One position is the class's or the mean's, the others make a square.
    sizes["image_size"] = scale * math.isqrt(positions.shape[0] - 1)
    return {"layers": layers, "width": width, "head_width": _HEAD_WIDTH, **sizes}


def _text_sizes(weights: Mapping[str, Tensor]) -> dict[str, int]:
    vocabulary, width = weights["token_embedding.weight"].shape
    return {
        "context_length": weights["positional_embedding"].shape[0],
        "vocab_size": vocabulary,
        "width": width,
        "heads": width // _HEAD_WIDTH,
        "layers": count_parts(weights, "transformer.resblocks."),
    }

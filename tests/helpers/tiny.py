"""Tiny models of the libraries that the adapters wrap, with random weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WORDS = ["[PAD]", "[UNK]", "[EOS]", "is", "red", "blue", "and", "sleeveless"]
CONTEXT = 8


def make_tokenizer(transformers: Any, words: list[str] = WORDS) -> Any:
    """A tokenizer of transformers that knows these words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="$A [EOS]", special_tokens=[("[EOS]", vocabulary["[EOS]"])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]"
    )


def make_transformers(transformers: Any, family: str) -> Any:
    """A ``"clip"``, ``"siglip"`` or ``"siglip2"`` for images of 16 x 16."""
    tower = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = tower | {
        "vocab_size": len(WORDS),
        "max_position_embeddings": CONTEXT,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    vision = tower | {"image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    if family == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        return transformers.CLIPModel(config).eval()
    if family == "siglip2":
        vision = tower | {"num_patches": 4, "patch_size": 8}
        config = transformers.Siglip2Config(text_config=text, vision_config=vision)
        return transformers.Siglip2Model(config).eval()
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    return transformers.SiglipModel(config).eval()


def make_open_clip(kind: str = "vit", dim: int = 12, **text: Any) -> Any:
    """A ``"vit"`` or ``"resnet"`` for images of 16 x 16 or 32 x 32; further text settings."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision = {
        "vit": CLIPVisionCfg(layers=2, width=16, head_width=8, patch_size=8, image_size=16),
        "resnet": CLIPVisionCfg(layers=(1, 1, 1, 1), width=4, head_width=16, image_size=32),
    }
    torch.manual_seed(0)
    sizes = {"context_length": 77, "width": 16, "heads": 2, "layers": 2}
    model: Any = CLIP(dim, vision[kind], CLIPTextCfg(**(sizes | text)), quick_gelu=True)
    return model.eval()


class Numbered:
    """Opens an image that its file name numbers: random pixels [3, size, size]."""

    def __init__(self, size: int = 16) -> None:
        self.size = size

    def __call__(self, path: Path) -> Tensor:
        generator = torch.Generator().manual_seed(int(path.stem))
        return torch.randn(3, self.size, self.size, generator=generator)

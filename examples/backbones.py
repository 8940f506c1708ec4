"""CLIP backbones, as the command lines of the examples name them."""

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fusecomp as fc


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a CLIP."""
    group = parser.add_argument_group("CLIP (needs the extra clip)")
    group.add_argument("--backbone", help="a name of open_clip, such as RN50x4-quickgelu")
    group.add_argument(
        "--weights", type=Path, help="weights of --backbone: OpenAI's file or a state dict"
    )
    group.add_argument("--clip-checkpoint", type=Path, help="a published tuned CLIP")
    group.add_argument(
        "--combiner-checkpoint", type=Path, help="a published Combiner: score it without training"
    )
    group.add_argument(
        "--preset",
        default="2022",
        choices=("2022", "2023"),
        help="stage 1 tunes the text encoder (2022, CVPRW) or both encoders (2023, TOMM)",
    )


def make_encoder(args: argparse.Namespace) -> fc.encoders.OpenClipEncoder:
    """Build the CLIP that the flags name, with the published preprocessing."""
    if args.clip_checkpoint is not None:
        return fc.encoders.OpenClipEncoder.from_clip4cir(args.clip_checkpoint).to(args.device)
    try:
        import open_clip
    except ImportError:
        raise ValueError('--backbone needs open_clip: pip install "fusecomp[clip]"') from None
    # Without weights of its own, and never through float16, which would round them.
    try:
        model: Any = open_clip.create_model(args.backbone, pretrained=None, precision="fp32")
    except RuntimeError as error:
        raise ValueError(f"--backbone {args.backbone}: {error}") from None
    if args.weights is not None:  # a saved model brings its own
        try:
            model.load_state_dict(read_weights(args.weights, args.backbone))
        except RuntimeError as error:
            raise ValueError(f"{args.weights} does not fit {args.backbone}: {error}") from None
    size = model.visual.image_size
    size = size if isinstance(size, int) else size[0]
    preprocess = fc.images.clip_transform(size, fc.images.TargetPad(1.25))
    tokenizer = open_clip.get_tokenizer(args.backbone)
    return fc.encoders.OpenClipEncoder(model, tokenizer, preprocess).to(args.device)


def read_weights(path: Path, backbone: str) -> dict[str, Tensor]:
    """Read a state dict from OpenAI's TorchScript archive or from a file of tensors."""
    if path.is_file() and is_torchscript(path):
        if "quickgelu" not in backbone:
            raise ValueError(
                f"{path} holds OpenAI's weights, which need QuickGELU: --backbone "
                f"{backbone}-quickgelu. Plain {backbone} would load them and give wrong features"
            )
        weights = torch.jit.load(path, map_location="cpu").state_dict()
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is no file of weights that torch reads") from error
        weights = content.get("CLIP") or content.get("state_dict") or content
    no_weights = ("input_resolution", "context_length", "vocab_size")
    return {name: tensor for name, tensor in weights.items() if name not in no_weights}


def is_torchscript(path: Path) -> bool:
    """Return whether a file is an archive with code, as OpenAI publishes its models."""
    import zipfile

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())

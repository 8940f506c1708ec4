"""What tests of wrong arguments share: small parts, and the argument that a case's name tells."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from evaluations import random_evaluation, random_model
from tasks import Toy, toy_task
from torch import nn

import fusecomp as fc
from fusecomp import training
from fusecomp.encoders import OpenClipEncoder

Call = Callable[[Any], Any]

EYE, IDS = torch.eye(3), torch.arange(3)
DATA = Toy([toy_task(queries=4, size=6)])
MODEL = random_model(DATA)
FOUND = random_evaluation(DATA)
TASK = FOUND.ranking["toy"]
NOWHERE = Path("nowhere")
CACHED = fc.CachedEncoder.from_arrays(list("abc"), EYE, list("xyz"), EYE)


def stage(**settings: Any) -> fc.StageConfig:
    return fc.StageConfig(**{"epochs": 1, "batch_size": 4, "lr": 0.1, **settings})


def setting(name: str) -> Call:
    return lambda value: stage(**{name: value})


def dual(**widths: Any) -> fc.DualEncoder:
    return fc.DualEncoder(**{"image": nn.Identity(), "text": len, "image_dim": 2, **widths})


def build(**options: Any) -> fc.CachedEncoder:
    return fc.CachedEncoder.build(MODEL.encoder, DATA, **options)


class OpenCLIP(nn.Module):
    """Has what an OpenClipEncoder asks for."""

    encode_image = encode_text = nn.Module.forward


OPEN_CLIP = OpenClipEncoder(OpenCLIP(), lambda texts: EYE)
STAGES: dict[str, Any] = {"loss": fc.InfoNCE(), "stage1": None, "stage2": stage()}


def in_stages(**options: Any) -> training.TwoStageTrainer:
    return training.TwoStageTrainer(CACHED, fc.Sum(), **STAGES, **options)


def ablated(**options: Any) -> training.Ablation:
    return training.ablation(CACHED, fc.Sum(), DATA, DATA, **STAGES, **options)


def argument_of(name: str) -> str:
    return name.partition(" of ")[0]

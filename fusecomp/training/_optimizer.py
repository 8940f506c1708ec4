import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from fusecomp.distributed import is_sharded
from fusecomp.training._stage_config import StageConfig


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], config: StageConfig
) -> torch.optim.Optimizer:
    """Make the optimiser, with a group for each pair of learning rate and weight decay."""
    named = {"lr_overrides": config.lr_overrides, "no_decay": config.no_decay or ()}
    for field, patterns in named.items():
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in parameters):
                raise ValueError(f"{field}: no learning parameter matches {pattern!r}")
    decay = config.weight_decay
    if decay is None:
        decay = 0.01 if config.optimizer == "adamw" else 0.0
    # One kernel cannot take sharded parameters and others.
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        rates = [lr for pattern, lr in config.lr_overrides.items() if fnmatchcase(name, pattern)]
        rate = rates[-1] if rates else config.lr
        weight_decay = decay if _decays(name, parameter, config) else 0.0
        groups.setdefault((rate, weight_decay, is_sharded(parameter)), []).append(parameter)
    listed: list[dict[str, Any]] = [
        {"params": members, "lr": lr, "weight_decay": wd} for (lr, wd, _), members in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(listed, config.lr)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    # The fused kernels are several times faster on CPUs too.
    return kind(listed, config.lr, config.betas, config.eps, fused=True)


def _decays(name: str, parameter: nn.Parameter, config: StageConfig) -> bool:
    # A learnable temperature would be dragged towards zero.
    if config.no_decay is None or (name.startswith("loss.") and parameter.ndim < 2):
        return parameter.ndim > 1
    return not any(fnmatchcase(name, pattern) for pattern in config.no_decay)


def rate_factor(config: StageConfig, step: int, steps: int) -> float:
    """Return the factor of the learning rate in a step (from 0)."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    # A loop of one's own may go on behind the last step.
    progress = min(1.0, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))
    if config.lr_schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1 - progress if config.lr_schedule == "linear" else 1.0

from typing import NamedTuple

import torch

from fusecomp._core.checks import require
from fusecomp.evaluation import default_metric, metric_names
from fusecomp.training._batches import plan
from fusecomp.training._stage_config import StageConfig
from fusecomp.types import Dataset


class StageData(NamedTuple):
    """The datasets of a stage."""

    train: Dataset
    val: Dataset | None
    # These pick the best weights, the deciding one first; empty without validation.
    metrics: tuple[str, ...]
    batches_per_epoch: int


def check_data(train: Dataset, val: Dataset | None, config: StageConfig) -> StageData:
    """Check the datasets of a stage against its settings."""
    order = "train_dataset, val_dataset"
    require("train_dataset", train, "triplets", "a Dataset", order)
    metrics: tuple[str, ...] = ()
    if val is not None:
        require("val_dataset", val, "tasks", "a Dataset", order)
        valid = metric_names(val)
        for metric in config.metrics:
            if metric not in valid:
                raise ValueError(f"unknown metric {metric!r}; valid: {', '.join(valid)}")
        metrics = config.metrics or (default_metric(val),)
    for name, value in (("metric", config.metric), ("patience", config.patience)):
        if val is None and value is not None:
            raise ValueError(f"{name}={value!r} needs a validation dataset")
    nobody_twice = torch.arange(len(train))
    return StageData(train, val, metrics, len(plan(len(train), config, 0, nobody_twice)))

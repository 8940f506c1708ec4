from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from fusecomp._core.abilities import lookups_of, token_sides, training_image_ids
from fusecomp._core.checks import require
from fusecomp._core.devices import device_of
from fusecomp._core.randomness import keyed
from fusecomp.caching import PartlyCachedEncoder
from fusecomp.evaluation import default_metric, metric_names
from fusecomp.images import image_paths
from fusecomp.training._batches import plan
from fusecomp.training._learning_parameters import Stage
from fusecomp.training._stage_config import StageConfig
from fusecomp.types import Dataset, Encoder


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


def look_up_frozen_sides(stage: Stage, data: StageData, frozen: Sequence[str]) -> Encoder:
    """Compute the features of frozen sides once, if the settings say so; return the encoder."""
    encoder: Encoder = stage.model.encoder
    known = lookups_of(encoder)
    datasets = [_TripletsOnly(data.train), *([] if data.val is None else [data.val])]
    if "image" in known:
        image_paths(datasets)  # raises where one id means two files
    sides = [side for side in frozen if side not in known]
    if not (stage.config.cache and sides):
        return encoder
    with keyed(stage.config.seed):
        cached = PartlyCachedEncoder.build(
            encoder,
            *datasets,
            sides=sides,
            num_workers=stage.config.num_workers,
            tokens=token_sides(encoder, stage.model.fusion_keywords),
        )
    # An encoder that is no module has no device; its features go to the fusion's.
    cached.tables.to(device_of(stage.model))
    return cached


class _TripletsOnly:
    """A training set without the gallery images that no triplet names, where it tells them."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.image_ids = training_image_ids(dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

from collections.abc import Sequence
from typing import Any

from fusecomp._core.abilities import heads_of, lookups_of, token_sides, training_image_ids
from fusecomp._core.devices import device_of
from fusecomp._core.randomness import keyed
from fusecomp.caching import FeatureTable, PartlyCachedEncoder
from fusecomp.images import image_paths
from fusecomp.model import ComposedEncoder
from fusecomp.training._learning_parameters import Stage, frozen_sides
from fusecomp.training._stage_config import StageConfig
from fusecomp.training._stage_data import StageData
from fusecomp.types import Dataset, Encoder


class FrozenFeatures:
    """The features of an encoder's sides that do not learn, kept from one stage to the next."""

    def __init__(self) -> None:
        # By the seed, as opening an image may draw random numbers, and by side.
        self._tables: dict[int, dict[str, FeatureTable]] = {}

    def forget(self, stage: Stage) -> None:
        """Forget the sides that a stage changes, before it begins or goes on."""
        learning = {id(parameter) for parameter in stage.learning.values()}
        heads = {
            side
            for side, head in heads_of(stage.model.encoder).items()
            if not learning.isdisjoint(map(id, head.parameters()))
        }
        fixed = set(frozen_sides(stage)) - heads
        for tables in self._tables.values():
            for side in tables.keys() - fixed:
                del tables[side]

    def of_stage(self, stage: Stage, data: StageData, frozen: Sequence[str]) -> Encoder:
        """Return a stage's encoder, with frozen sides looked up if the settings say so."""
        # Validation first: its features are the same, to the bit, as where it comes alone.
        datasets = [*([] if data.val is None else [data.val]), _TripletsOnly(data.train)]
        if "image" in lookups_of(stage.model.encoder):
            image_paths(datasets)  # raises where one id means two files
        sides = frozen if stage.config.cache else ()
        return self.look_up(stage.model, datasets, sides, stage.config)

    def look_up(
        self,
        model: ComposedEncoder,
        datasets: Sequence[Dataset],
        sides: Sequence[str],
        config: StageConfig,
    ) -> Encoder:
        """Return a model's encoder with some sides looked up; what is not known is computed."""
        encoder: Encoder = model.encoder
        sides = [side for side in sides if side not in lookups_of(encoder)]
        if not sides:
            return encoder
        known = self._tables.setdefault(config.seed, {})
        with keyed(config.seed):
            cached = PartlyCachedEncoder.build(
                encoder,
                *datasets,
                sides=sides,
                num_workers=config.num_workers,
                tokens=token_sides(encoder, model.fusion_keywords),
                known=known,
            )
        # An encoder that is no module has no device; its features go to the fusion's.
        cached.tables.to(device_of(model))
        for side, table in cached.tables.items():
            if isinstance(table, FeatureTable) and side not in cached.heads:
                known[side] = table
        return cached


class _TripletsOnly:
    """A training set without the gallery images that no triplet names, where it tells them."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.image_ids = training_image_ids(dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

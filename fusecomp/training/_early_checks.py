"""Checks of a loss and a fusion against model and data, before a training that may take hours."""

from torch import nn

from fusecomp._core.abilities import lookups_of, reference_prompts, reference_texts_of
from fusecomp._core.checks import ordered
from fusecomp._core.devices import device_of
from fusecomp._core.fusion_inputs import require_prompts
from fusecomp._core.keywords import require_known
from fusecomp._core.randomness import own_streams
from fusecomp.losses import Bank, Queue
from fusecomp.model import ComposedEncoder
from fusecomp.training._learning_parameters import Stage, moving_images
from fusecomp.training._stage_config import StageConfig
from fusecomp.training._stage_data import StageData
from fusecomp.types import LOSS_KEYWORDS, Dataset, Loss


def check_loss(stage: Stage) -> None:
    """Refuse a loss that would fail or learn wrongly with this model, whatever the data."""
    require_known("loss", stage.loss, LOSS_KEYWORDS)
    moving = moving_images(stage)
    for name, memory in _memories(stage.loss).items():
        if moving and isinstance(memory, Bank):
            more = f" and {len(moving) - 3} more" if len(moving) > 3 else ""
            raise ValueError(
                f"{name} is a {memory} of targets that never change, but with trainable="
                f"{stage.config.trainable!r} {', '.join(moving[:3])}{more} may learn on the image "
                "side, so that targets move away from it: give this training a loss without a bank "
                "(a Queue follows), or freeze these by requires_grad_(False)"
            )


def check_parts(model: ComposedEncoder, loss: Loss, data: StageData) -> None:
    """Refuse a fusion that needs prompts of other datasets, and ids that no image has."""
    for dataset in (data.train, data.val):
        if dataset is not None:
            require_prompts(model.fusion, dataset)
    for name, memory in _memories(loss).items():
        if isinstance(memory, Bank):
            size = len(data.train.image_ids)
            wrong = memory.ids[(memory.ids < 0) | (memory.ids >= size)].tolist()
            if wrong:
                raise ValueError(
                    f"{name} has the ids {wrong[:5]}, but the training set has {size} images: ids "
                    "are positions in its image_ids"
                )


def try_parts(model: ComposedEncoder, loss: Loss, dataset: Dataset, config: StageConfig) -> None:
    """Make one query and one target, so that widths that do not fit are found; change nothing."""
    given = dataset.triplets(0, config.seed)
    triplet = ordered("triplets() of a dataset", given, "triplets")[0]
    names = [triplet.reference_id]
    told = reference_texts_of(dataset)
    looked_up = "image" in lookups_of(model.encoder)
    prompts = reference_prompts(told, names) if told else None
    with own_streams(device_of(model)):
        images = names if looked_up else [dataset.path(name) for name in names]
        model.encode_query(images, triplet.texts[:1], prompts)
        target = model.encode_gallery(images)
    for memory in _memories(loss).values():
        memory.check_width(target)


def _memories(loss: Loss) -> dict[str, Bank | Queue]:
    modules = loss.named_modules() if isinstance(loss, nn.Module) else ()
    return {f"loss.{name}": part for name, part in modules if isinstance(part, Bank | Queue)}

"""What learns in a stage, by name."""

from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from fusecomp.model import ComposedEncoder
from fusecomp.training._stage import StageConfig

__all__ = ["frozen_sides", "learning_parameters"]

_SIDES = ("image", "text")


def learning_parameters(model: ComposedEncoder, config: StageConfig) -> dict[str, nn.Parameter]:
    """The parameters of the model that ``config.train`` names.

    Raises:
        ValueError: if a name stands for nothing that could learn.
    """
    names = (config.train,) if isinstance(config.train, str) else config.train
    parameters = dict(model.named_parameters())
    chosen: dict[str, nn.Parameter] = {}
    for name in names:
        patterns = _patterns(model, name)
        found = {n: p for n, p in parameters.items() if any(fnmatchcase(n, x) for x in patterns)}
        if not found:
            raise ValueError(
                f"train={name!r} names nothing that can learn: no parameter of the model matches "
                f"{', '.join(patterns)}"
            )
        chosen.update(found)
    return {name: parameter for name, parameter in parameters.items() if name in chosen}


def _patterns(model: ComposedEncoder, name: str) -> list[str]:
    if name == "fusion":
        return ["fusion.*"]
    if name not in (*_SIDES, "both"):
        return [name]
    towers: Any = getattr(model.encoder, "towers", None)
    if towers is None or not isinstance(model.encoder, nn.Module):
        raise ValueError(
            f"train={name!r} needs an encoder that is a module with towers, such as DualEncoder; "
            f"{type(model.encoder).__name__} has none"
        )
    sides = _SIDES if name == "both" else (name,)
    return [f"encoder.{pattern}" for side in sides for pattern in towers[side]]


def frozen_sides(model: ComposedEncoder, learning: dict[str, nn.Parameter]) -> list[str]:
    """The sides of the encoder of which nothing learns."""
    in_encoder = [name for name in learning if name.startswith("encoder.")]
    if not in_encoder:
        return list(_SIDES)
    towers: Any = getattr(model.encoder, "towers", None)
    if towers is None:
        return []
    patterns = {side: [f"encoder.{pattern}" for pattern in towers[side]] for side in _SIDES}
    known = [p for side in _SIDES for p in patterns[side]]
    # A parameter outside both towers may serve either side.
    if any(not any(fnmatchcase(name, p) for p in known) for name in in_encoder):
        return []
    return [
        side
        for side in _SIDES
        if not any(fnmatchcase(name, p) for name in in_encoder for p in patterns[side])
    ]

"""What learns in a stage, by name."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from fusecomp.model import ComposedEncoder
from fusecomp.protocols import SIDES
from fusecomp.training._stage import StageConfig

__all__ = ["frozen_sides", "learning_parameters"]


def learning_parameters(model: ComposedEncoder, config: StageConfig) -> dict[str, nn.Parameter]:
    """The parameters of the model that ``config.train`` names; heads learn with their towers.

    Raises:
        ValueError: if a name stands for nothing that could learn.
    """
    names = (config.train,) if isinstance(config.train, str) else config.train
    # A parameter that both towers share has two names.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    chosen: set[str] = set()
    for name in names:
        patterns = _patterns(model, name)
        found = _matching(parameters, patterns)
        if not found:
            raise ValueError(
                f"train={name!r} names nothing that can learn: no parameter of the model matches "
                f"{', '.join(patterns) or 'it'}. Valid: 'fusion' if it has weights (Sum has none), "
                "'text', 'image', 'both', or name patterns such as 'encoder.text.*'"
            )
        chosen.update(found)
    if any(name.startswith("encoder.") for name in chosen):
        chosen.update(_matching(parameters, _tower(model, "heads")))
    learning = {id(parameters[name]) for name in chosen}
    return {name: p for name, p in model.named_parameters() if id(p) in learning}


def _patterns(model: ComposedEncoder, name: str) -> list[str]:
    if name == "fusion":
        return ["fusion.*"]
    if name not in (*SIDES, "both"):
        return [name]
    if getattr(model.encoder, "towers", None) is None or not isinstance(model.encoder, nn.Module):
        raise ValueError(
            f"train={name!r} needs an encoder that is a module with towers, such as DualEncoder; "
            f"{type(model.encoder).__name__} has none"
        )
    sides = SIDES if name == "both" else (name,)
    return [pattern for side in sides for pattern in _tower(model, side)]


def _tower(model: ComposedEncoder, name: str) -> list[str]:
    towers: Any = getattr(model.encoder, "towers", None) or {}
    return [f"encoder.{pattern}" for pattern in towers.get(name, ())]


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    patterns = list(patterns)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def frozen_sides(model: ComposedEncoder, learning: Mapping[str, nn.Parameter]) -> list[str]:
    """The sides of the encoder of which nothing learns, but perhaps a head on top."""
    parameters = dict(model.named_parameters(remove_duplicate=False))

    def members(patterns: Iterable[str]) -> set[int]:
        return {id(parameters[name]) for name in _matching(parameters, patterns)}

    below = members(["encoder.*"]) & {id(parameter) for parameter in learning.values()}
    below -= members(_tower(model, "heads"))
    towers = {side: members(_tower(model, side)) for side in SIDES}
    # A parameter outside both towers may serve either side.
    if below - towers["image"] - towers["text"]:
        return []
    return [side for side in SIDES if not below & towers[side]]

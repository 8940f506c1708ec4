from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from fusecomp._core.abilities import heads_of, towers_of
from fusecomp.model import ComposedEncoder
from fusecomp.training._stage_config import StageConfig
from fusecomp.types import SIDES, Loss

# What trainers have set requires_grad to, and how the user had it before.
SET_BY_TRAINERS: MutableMapping[Tensor, tuple[bool, bool]] = WeakTensorKeyDictionary()


@dataclass(frozen=True, slots=True)
class Stage:
    """The parts of a stage; ``learning`` are the parameters of the model that learn, by name."""

    model: ComposedEncoder
    loss: Loss
    config: StageConfig
    learning: Mapping[str, nn.Parameter]

    @property
    def loss_module(self) -> nn.Module:
        """The loss, or an empty module in place of a function."""
        return self.loss if isinstance(self.loss, nn.Module) else nn.Module()


def learning_parameters(model: ComposedEncoder, config: StageConfig) -> dict[str, nn.Parameter]:
    """Return what ``config.trainable`` names and the user has not frozen; heads with towers."""
    names = (config.trainable,) if isinstance(config.trainable, str) else config.trainable
    chosen: dict[str, nn.Parameter] = {}
    for name in names:
        patterns = _patterns(model, name)
        found = _matching(model, patterns)
        if not found:
            raise ValueError(
                f"trainable={name!r} names nothing that can learn: no parameter of the model "
                f"matches {', '.join(patterns) or 'it'}. Valid: 'fusion' if it has weights (Sum "
                "has none), 'text', 'image', 'both', or name patterns such as 'encoder.text.*'"
            )
        chosen |= found
    if any(name.startswith("encoder.") for name in chosen):
        chosen |= _matching(model, _tower(model, "heads"))
    free = {id(parameter) for parameter in chosen.values() if is_free(parameter)}
    if not free:
        raise ValueError(
            f"trainable={config.trainable!r} names {len(chosen)} parameters, the first: "
            f"{next(iter(chosen))!r}, and you have frozen all of them, so that nothing is left to "
            "learn: unfreeze what shall learn by requires_grad_(True) before you make the Trainer, "
            "or name other parts"
        )
    learns = {n: p for n, p in model.named_parameters() if id(p) in free}
    for name, module in model.named_modules():
        if vars(module).get("sparse") is True and f"{name}.weight" in learns:
            raise ValueError(f"{name} has sparse gradients: make it with sparse=False")
    return learns


def is_free(parameter: Tensor) -> bool:
    """Return whether the user lets a parameter learn, whatever trainers have frozen meanwhile."""
    now, before = SET_BY_TRAINERS.get(parameter, (None, False))
    if parameter.requires_grad is now:
        return before
    SET_BY_TRAINERS.pop(parameter, None)  # the user has set it since
    return parameter.requires_grad


def require_precision(learning: Mapping[str, nn.Parameter]) -> None:
    """Refuse parameters whose updates would be lost."""
    for name, parameter in learning.items():
        if torch.finfo(parameter.dtype).bits < 32:
            raise ValueError(
                f"{name} is {parameter.dtype} and would learn, but half precision rounds most "
                "updates away: make what learns float32, by .float(), and use precision='bf16' or "
                "'fp16' in StageConfig to compute in half precision"
            )
        if parameter.is_inference():
            raise ValueError(
                f"{name} was made in torch.inference_mode and cannot learn: make the model outside"
            )


def _patterns(model: ComposedEncoder, name: str) -> list[str]:
    if name == "fusion":
        return ["fusion.*"]
    if name not in (*SIDES, "both"):
        return [name]
    if towers_of(model.encoder) is None or not isinstance(model.encoder, nn.Module):
        raise ValueError(
            f"trainable={name!r} needs an encoder that is a module with towers, such as "
            f"DualEncoder; {type(model.encoder).__name__} has none"
        )
    sides = SIDES if name == "both" else (name,)
    return [pattern for side in sides for pattern in _tower(model, side)]


def _tower(model: ComposedEncoder, name: str) -> list[str]:
    return [f"encoder.{pattern}" for pattern in (towers_of(model.encoder) or {}).get(name, ())]


def _matching(model: ComposedEncoder, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    # A parameter that both towers share has two names.
    named = model.named_parameters(remove_duplicate=False)
    return {n: p for n, p in named if any(fnmatchcase(n, pattern) for pattern in patterns)}


def _members(model: ComposedEncoder, tower: str) -> set[int]:
    return {id(parameter) for parameter in _matching(model, _tower(model, tower)).values()}


def frozen_sides(stage: Stage) -> list[str]:
    """List the sides of the encoder in which nothing learns, except perhaps a head on top."""
    below = {id(p) for name, p in stage.learning.items() if name.startswith("encoder.")}
    below -= _members(stage.model, "heads")
    image, text = (_members(stage.model, side) for side in SIDES)
    # A parameter outside both towers may serve either side.
    if below - image - text:
        return []
    return [side for side, tower in zip(SIDES, (image, text), strict=True) if not below & tower]


def moving_images(stage: Stage) -> list[str]:
    """Name the encoder's learning parameters that are not known to serve texts alone."""
    image, text = (_members(stage.model, side) for side in SIDES)
    heads = heads_of(stage.model.encoder)
    if "text" in heads:
        text |= {id(parameter) for parameter in heads["text"].parameters()}
    of_texts = text - image
    of_encoder = ((n, p) for n, p in stage.learning.items() if n.startswith("encoder."))
    return [name for name, parameter in of_encoder if id(parameter) not in of_texts]

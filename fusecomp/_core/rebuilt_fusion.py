"""Building the fusion of a saved model again, from its arguments and weights."""

import inspect
from collections.abc import Mapping

import torch
from torch import nn

from fusecomp._core.identity import class_name, without_compile
from fusecomp._core.saved_model import SavedModel
from fusecomp._core.weights import check_weights
from fusecomp.distributed import plain_class
from fusecomp.types import Fusion

# The classes that are rebuilt, by name.
_Classes = Mapping[str, type[nn.Module]]


def arguments_of(fusion: Fusion, classes: _Classes) -> dict[str, object] | None:
    """Return the arguments that rebuild a fusion; None of a class that is not rebuilt."""
    module = without_compile(fusion)
    if plain_class(module) is not classes.get(class_name(module)):
        return None
    # Each fusion keeps its arguments under their own names.
    names = inspect.signature(classes[class_name(module)]).parameters
    return {name: value for name, value in vars(module).items() if name in names}


def rebuilt(saved: SavedModel, classes: _Classes, device: torch.device) -> Fusion:
    """Return the saved fusion with its dtype, on a device; its weights are not yet loaded."""
    name, arguments = saved.parts.fusion, saved.parts.arguments
    if arguments is None or name not in classes:
        raise ValueError(
            f"{saved.path} holds the fusion {name}, which is not rebuilt: pass fusion="
        )
    where, prefix = f"{saved.path} holds no complete {name}", "fusion."
    weights = {n.removeprefix(prefix): t for n, t in saved.weights.items() if n.startswith(prefix)}
    try:
        with torch.device("meta"):  # sizes may be a hostile file's
            expected = classes[name](**arguments).state_dict()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: {error}") from error
    check_weights(where, weights, expected)
    dtype = next((t.dtype for t in weights.values() if t.is_floating_point()), None)
    return classes[name](**arguments).to(device, dtype)

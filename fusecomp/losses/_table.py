"""Features that a loss is given once: checked, and of unit length."""

from typing import Any

from torch import Tensor, nn

from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import check_features, check_finite, widen

__all__ = ["refuse_loaded_nan", "unit_table"]


def unit_table(features: Any, name: str) -> Tensor:
    """The features [M, D] at unit length, without a graph.

    Raises:
        TypeError: on what is no torch tensor.
        ValueError: unless they are [M, D] of a floating dtype; naming a row that is not finite.
    """
    check_features(features, name, "[M, D]")
    check_finite(features, name)
    return normalize(widen(features.detach()))


def refuse_loaded_nan(module: nn.Module) -> None:
    """Let the module refuse a state dict whose ``features`` hold NaN or infinity."""
    listening: Any = module  # torch gives the method no types
    listening.register_load_state_dict_post_hook(_check_loaded)


def _check_loaded(module: nn.Module, keys: Any) -> None:
    features: Any = module.features
    check_finite(features, f"the state dict's features of {type(module).__name__}")

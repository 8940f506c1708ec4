from typing import Any

import torch
from torch import Tensor, nn

from fusecomp._core.identity import hash_tensors
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import check_features, check_finite, widen


class KeptFeatures(nn.Module):
    """A part of a loss with a buffer of unit features [M, D], which must stay finite."""

    features: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("features", features)
        listening: Any = self  # torch gives the method no types
        listening.register_load_state_dict_post_hook(_check_loaded)

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{len(self.features)}, dim={self.features.shape[1]}"


class FixedFeatures(KeptFeatures):
    """Kept features that training never changes, so that a run is known by them."""

    def fingerprint(self) -> str:
        """Hash features and ids."""
        return hash_tensors(self.named_buffers())


def _check_loaded(module: KeptFeatures, keys: object) -> None:
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            check_finite(buffer, f"the state dict's {name} of {type(module).__name__}")


def unit_table(features: Tensor, name: str) -> Tensor:
    """Return finite features [M, D] at unit length, without a graph."""
    check_features(features, name, "[M, D]")
    check_finite(features, name)
    return normalize(widen(features.detach()))


def find(known_ids: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the position of each id among the known ones, which are sorted, and if it is known."""
    positions = torch.searchsorted(known_ids, ids.contiguous()).clamp(max=len(known_ids) - 1)
    return positions, known_ids[positions] == ids

"""Losses: features of the global batch in, a scalar out.

A loss is any callable ``loss(query, target) -> scalar`` on [B, D] tensors.
"""

from typing import TYPE_CHECKING

from fusecomp.lazy import lazily
from fusecomp.losses._bank import Queue
from fusecomp.losses._infonce import InfoNCE
from fusecomp.losses._temperature import LearnableTemperature

if TYPE_CHECKING:
    from fusecomp.losses._alignment import CosineAlignment
    from fusecomp.losses._distill import Distill
    from fusecomp.losses._hard_negative import HardNegativeNCE
    from fusecomp.losses._multi_positive import MultiPositive
    from fusecomp.losses._sigmoid import Sigmoid
    from fusecomp.losses._triplet import TripletMargin
    from fusecomp.losses._weighted_sum import WeightedSum
else:
    __getattr__ = lazily(
        __name__,
        {
            "CosineAlignment": "fusecomp.losses._alignment",
            "Distill": "fusecomp.losses._distill",
            "HardNegativeNCE": "fusecomp.losses._hard_negative",
            "MultiPositive": "fusecomp.losses._multi_positive",
            "Sigmoid": "fusecomp.losses._sigmoid",
            "TripletMargin": "fusecomp.losses._triplet",
            "WeightedSum": "fusecomp.losses._weighted_sum",
        },
    )

__all__ = [
    "CosineAlignment",
    "Distill",
    "HardNegativeNCE",
    "InfoNCE",
    "LearnableTemperature",
    "MultiPositive",
    "Queue",
    "Sigmoid",
    "TripletMargin",
    "WeightedSum",
]

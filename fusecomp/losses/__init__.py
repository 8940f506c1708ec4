"""Losses: features of the global batch in, a scalar out.

A loss is any callable ``loss(query, target) -> scalar`` on [B, D] tensors.
"""

from fusecomp.losses._alignment import CosineAlignment
from fusecomp.losses._bank import Queue
from fusecomp.losses._distill import Distill
from fusecomp.losses._hard_negative import HardNegativeNCE
from fusecomp.losses._infonce import InfoNCE
from fusecomp.losses._multi_positive import MultiPositive
from fusecomp.losses._sigmoid import Sigmoid
from fusecomp.losses._temperature import LearnableTemperature
from fusecomp.losses._triplet import TripletMargin
from fusecomp.losses._weighted_sum import WeightedSum

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

"""Losses: features of the global batch in, a scalar out.

A loss is any callable ``loss(query, target) -> scalar`` on [B, D] tensors.
"""

from fusecomp.losses._alignment import CosineAlignmentLoss
from fusecomp.losses._combined import CombinedLoss
from fusecomp.losses._distillation import DistillationLoss
from fusecomp.losses._hard_negative import HardNegativeNCE
from fusecomp.losses._infonce import InfoNCE
from fusecomp.losses._memory import Bank, Queue
from fusecomp.losses._multi_positive import MultiPositiveNCE
from fusecomp.losses._sigmoid import SigmoidLoss
from fusecomp.losses._temperature import LearnableTemperature
from fusecomp.losses._triplet import TripletMarginLoss

__all__ = [
    "Bank",
    "CombinedLoss",
    "CosineAlignmentLoss",
    "DistillationLoss",
    "HardNegativeNCE",
    "InfoNCE",
    "LearnableTemperature",
    "MultiPositiveNCE",
    "Queue",
    "SigmoidLoss",
    "TripletMarginLoss",
]

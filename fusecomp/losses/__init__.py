"""Losses: features of the global batch in, a scalar out.

A loss is any callable ``loss(query, target) -> scalar`` on [B, D] tensors.
"""

from fusecomp.losses._bank import Bank, Queue
from fusecomp.losses._infonce import InfoNCE
from fusecomp.losses._temperature import LearnableTemperature

__all__ = ["Bank", "InfoNCE", "LearnableTemperature", "Queue"]

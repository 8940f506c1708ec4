"""Fusions: image features and text features in, one query out.

A fusion is any callable ``fusion(image, text) -> query`` on [B, D] and [B, T] tensors.
"""

from fusecomp.fusions._artemis import ARTEMIS
from fusecomp.fusions._cirplant import CIRPLANT
from fusecomp.fusions._combiner import Combiner
from fusecomp.fusions._concat import Concat
from fusecomp.fusions._convex_gate import ConvexGate
from fusecomp.fusions._direction import Direction
from fusecomp.fusions._mutan import MUTAN
from fusecomp.fusions._rtic import RTIC
from fusecomp.fusions._slerp import Slerp
from fusecomp.fusions._sum import Sum
from fusecomp.fusions._tirg import TIRG
from fusecomp.fusions._weighted_sum import WeightedSum

__all__ = [
    "ARTEMIS",
    "CIRPLANT",
    "MUTAN",
    "RTIC",
    "TIRG",
    "Combiner",
    "Concat",
    "ConvexGate",
    "Direction",
    "Slerp",
    "Sum",
    "WeightedSum",
]

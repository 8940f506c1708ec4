"""Fusions: image features and text features in, one query out.

A fusion is any callable ``fusion(image, text) -> query`` on [B, D] tensors.
"""

from fusecomp.fusions._combiner import Combiner
from fusecomp.fusions._sum import Sum

__all__ = ["Combiner", "Sum"]

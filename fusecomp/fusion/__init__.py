"""Fusions: image features and text features in, one query out.

A fusion is any callable ``fusion(image, text) -> query`` on [B, D] tensors.
"""

from fusecomp.fusion._combiner import Combiner
from fusecomp.fusion._sum import Sum

__all__ = ["Combiner", "Sum"]

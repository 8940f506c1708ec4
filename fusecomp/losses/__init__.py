"""Losses: features of the global batch in, a scalar out.

A loss is any callable ``loss(query, target) -> scalar`` on [B, D] tensors.
"""

from fusecomp.losses._infonce import InfoNCE

__all__ = ["InfoNCE"]

"""Exact search by cosine, and metrics on what it ranks."""

from fusecomp._core.metrics import hits_at_k
from fusecomp.retrieval._metrics import median_rank, recall_at_k, target_rank
from fusecomp.retrieval._search import TargetRanks, search, search_targets

__all__ = [
    "TargetRanks",
    "hits_at_k",
    "median_rank",
    "recall_at_k",
    "search",
    "search_targets",
    "target_rank",
]

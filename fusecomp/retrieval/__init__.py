"""Exact search by cosine, and metrics on what it ranks."""

from fusecomp.retrieval._metrics import hits_at_k, median_rank, recall_at_k, target_rank
from fusecomp.retrieval._search import Ranked, rank_targets, search

__all__ = [
    "Ranked",
    "hits_at_k",
    "median_rank",
    "rank_targets",
    "recall_at_k",
    "search",
    "target_rank",
]

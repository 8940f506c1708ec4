"""Exact search, galleries and their indexes, sessions of several rounds, metrics of ranks."""

from fusecomp._core.metrics import hits_at_k
from fusecomp.retrieval._compose_parts import compose_parts
from fusecomp.retrieval._exact_index import ExactIndex
from fusecomp.retrieval._faiss_index import FaissIndex, IndexRecall
from fusecomp.retrieval._gallery import Gallery
from fusecomp.retrieval._hits import Hits
from fusecomp.retrieval._metrics import median_rank, recall_at_k, target_rank
from fusecomp.retrieval._milvus_index import MilvusIndex
from fusecomp.retrieval._rerank import rerank
from fusecomp.retrieval._round import Round
from fusecomp.retrieval._search import TargetRanks, search, search_targets
from fusecomp.retrieval._session import SearchSession
from fusecomp.retrieval._session_file import Judgement
from fusecomp.retrieval._strategies import LastRound, MeanOfRounds, Rocchio, Strategy

__all__ = [
    "ExactIndex",
    "FaissIndex",
    "Gallery",
    "Hits",
    "IndexRecall",
    "Judgement",
    "LastRound",
    "MeanOfRounds",
    "MilvusIndex",
    "Rocchio",
    "Round",
    "SearchSession",
    "Strategy",
    "TargetRanks",
    "compose_parts",
    "hits_at_k",
    "median_rank",
    "recall_at_k",
    "rerank",
    "search",
    "search_targets",
    "target_rank",
]

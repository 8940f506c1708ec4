"""Composed image retrieval: fuse an image and a text embedding into one query.

The most used names stand here; the packages hold the rest.
"""

from fusecomp import data, encoders, fusion, losses, report, retrieval, training
from fusecomp.encoders import CachedEncoder, DualEncoder
from fusecomp.evaluation import Evaluation, Ranking, evaluate, rank
from fusecomp.fusion import Combiner, Sum
from fusecomp.losses import InfoNCE
from fusecomp.model import ComposedEncoder
from fusecomp.records import Triplet
from fusecomp.training import Run, StageConfig, Trainer, TwoStageTrainer, fit

__version__ = "0.1.0"

__all__ = [
    "CachedEncoder",
    "Combiner",
    "ComposedEncoder",
    "DualEncoder",
    "Evaluation",
    "InfoNCE",
    "Ranking",
    "Run",
    "StageConfig",
    "Sum",
    "Trainer",
    "Triplet",
    "TwoStageTrainer",
    "data",
    "encoders",
    "evaluate",
    "fit",
    "fusion",
    "losses",
    "rank",
    "report",
    "retrieval",
    "training",
]

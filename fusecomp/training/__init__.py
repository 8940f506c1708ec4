"""Training: one loop for every stage, its settings, and the paper's two stages."""

from fusecomp.training import presets
from fusecomp.training._ablation import Ablation, ablation
from fusecomp.training._batches import batches
from fusecomp.training._loggers import TensorBoardLog, TqdmBar, WandbLog
from fusecomp.training._outcome import NonFiniteError
from fusecomp.training._stage import StageConfig
from fusecomp.training._trainer import Run, Trainer, fit
from fusecomp.training._two_stage import TwoStageTrainer

__all__ = [
    "Ablation",
    "NonFiniteError",
    "Run",
    "StageConfig",
    "TensorBoardLog",
    "TqdmBar",
    "Trainer",
    "TwoStageTrainer",
    "WandbLog",
    "ablation",
    "batches",
    "fit",
    "presets",
]

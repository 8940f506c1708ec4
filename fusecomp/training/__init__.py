"""Training: one loop for every stage, its settings, and the paper's two stages."""

from fusecomp.training import presets
from fusecomp.training._ablation import Ablation, ablation
from fusecomp.training._batches import batches
from fusecomp.training._interpolate import interpolate
from fusecomp.training._loggers import TensorBoardLog, TqdmBar, WandbLog
from fusecomp.training._progress import NonFiniteError
from fusecomp.training._stage_config import StageConfig
from fusecomp.training._trainer import Run, Trainer
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
    "interpolate",
    "presets",
]

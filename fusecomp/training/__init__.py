"""Training: one loop for every stage, its settings, and the paper's two stages."""

from typing import TYPE_CHECKING

from fusecomp.lazy import lazily
from fusecomp.training import presets
from fusecomp.training._ablation import Ablation, ablation
from fusecomp.training._batches import batches
from fusecomp.training._outcome import NonFiniteError
from fusecomp.training._stage import StageConfig
from fusecomp.training._trainer import Run, Trainer, fit
from fusecomp.training._two_stage import TwoStageTrainer

if TYPE_CHECKING:
    from fusecomp.training._loggers import TensorBoardLog, TqdmBar, WandbLog
else:
    __getattr__ = lazily(
        __name__,
        dict.fromkeys(("TensorBoardLog", "TqdmBar", "WandbLog"), "fusecomp.training._loggers"),
    )

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

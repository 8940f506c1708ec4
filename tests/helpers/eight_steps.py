"""Trainings of four epochs of two steps each, without dropout."""

from pathlib import Path
from typing import Any

from toy import DIM, Toy, encoder

import fusecomp as fc

CONFIG = fc.StageConfig(epochs=4, batch_size=5, lr=0.05)


def composed(dropout: float = 0.0) -> fc.ComposedEncoder:
    return fc.ComposedEncoder(encoder(), fc.Combiner(DIM, dropout=dropout))


def fit(root: Path, config: fc.StageConfig, validation: Any = None, **more: Any) -> fc.Run:
    trainer = fc.Trainer(composed(), loss=fc.InfoNCE(0.1), config=config, **more)
    return trainer.fit(Toy(root), validation)

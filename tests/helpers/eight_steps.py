"""Trainings of four epochs of two steps each, without dropout."""

from pathlib import Path
from typing import Any

from toy import DIM, Toy, encoder

import fusecomp as fc

CONFIG = fc.StageConfig(epochs=4, batch_size=5, lr=0.05)


def composed(dropout: float = 0.0) -> fc.ComposedEncoder:
    return fc.ComposedEncoder(encoder(), fc.Combiner(DIM, dropout=dropout))


def fit(root: Path, config: fc.StageConfig, **more: Any) -> fc.Run:
    return fc.fit(composed(), Toy(root), fc.InfoNCE(0.1), config, **more)

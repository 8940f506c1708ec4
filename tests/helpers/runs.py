"""Runs of the toy world in a workdir."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toy import CONFIG, Toy, composed

import fusecomp as fc


def fit(
    root: Path,
    name: str = "run",
    *,
    model: fc.ComposedEncoder | None = None,
    loss: Any = None,
    data: Any = None,
    validation: Any = None,
    callbacks: Sequence[object] = (),
    **settings: Any,
) -> fc.Run:
    """Begin, or go on with, a run of one epoch in the folder ``name``; settings change CONFIG."""
    trainer = fc.Trainer(
        model or composed(),
        loss=loss or fc.InfoNCE(),
        config=replace(CONFIG, **{"epochs": 1, **settings}),
        workdir=root / name,
        callbacks=callbacks,
    )
    return trainer.fit(data or Toy(root), validation)

"""Composed image retrieval: fuse an image and a text embedding into one query.

The most used names are here, the rest is in the packages. Each is loaded when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusecomp import (
        caching,
        datasets,
        encoders,
        evaluation,
        fusions,
        images,
        losses,
        report,
        retrieval,
        training,
        types,
    )
    from fusecomp.caching import CachedEncoder
    from fusecomp.encoders import DualEncoder
    from fusecomp.evaluation import Evaluation, Ranking, evaluate, rank
    from fusecomp.fusions import Combiner, Sum
    from fusecomp.images import ImageError
    from fusecomp.losses import InfoNCE
    from fusecomp.model import ComposedEncoder
    from fusecomp.retrieval import Gallery, SearchSession
    from fusecomp.training import Run, StageConfig, Trainer, TwoStageTrainer
    from fusecomp.types import Dataset, Encoder, Fusion, Loss, Task, Triplet

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("Dataset", "Encoder", "Fusion", "Loss", "Task", "Triplet"), "types"),
    **dict.fromkeys(("Evaluation", "Ranking", "evaluate", "rank"), "evaluation"),
    **dict.fromkeys(("Run", "StageConfig", "Trainer", "TwoStageTrainer"), "training"),
    **dict.fromkeys(("Combiner", "Sum"), "fusions"),
    "CachedEncoder": "caching",
    "ComposedEncoder": "model",
    "DualEncoder": "encoders",
    "InfoNCE": "losses",
    "ImageError": "images",
    **dict.fromkeys(("Gallery", "SearchSession"), "retrieval"),
}

__all__ = [
    "CachedEncoder",
    "Combiner",
    "ComposedEncoder",
    "Dataset",
    "DualEncoder",
    "Encoder",
    "Evaluation",
    "Fusion",
    "Gallery",
    "ImageError",
    "InfoNCE",
    "Loss",
    "Ranking",
    "Run",
    "SearchSession",
    "StageConfig",
    "Sum",
    "Task",
    "Trainer",
    "Triplet",
    "TwoStageTrainer",
    "caching",
    "datasets",
    "encoders",
    "evaluate",
    "evaluation",
    "fusions",
    "images",
    "losses",
    "rank",
    "report",
    "retrieval",
    "training",
    "types",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"fusecomp.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"fusecomp.{name}")
    raise AttributeError(f"module 'fusecomp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

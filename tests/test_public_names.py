"""The public names of each package, and that each has a docstring."""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import fusecomp

ROOT = Path(fusecomp.__file__).parent

PUBLIC = {
    "fusecomp": [
        "CachedEncoder",
        "Combiner",
        "ComposedEncoder",
        "Dataset",
        "DualEncoder",
        "Encoder",
        "Evaluation",
        "Fusion",
        "Gallery",
        "InfoNCE",
        "Loss",
        "ImageError",
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
    ],
    "fusecomp.caching": ["CachedEncoder", "FeatureTable", "PartlyCachedEncoder"],
    "fusecomp.datasets": [
        "CIRCO",
        "CIRR",
        "FashionIQ",
        "Finding",
        "MultiTurnFashionIQ",
        "TripletTable",
        "Triplets",
        "VerifyReport",
        "drop_images",
        "split_by_group",
    ],
    "fusecomp.encoders": [
        "DualEncoder",
        "OpenClipEncoder",
        "SentenceTransformersText",
        "TransformersEncoder",
    ],
    "fusecomp.evaluation": [
        "Change",
        "Comparison",
        "CosineDistribution",
        "Cosines",
        "Difference",
        "Evaluation",
        "GeometricMean",
        "HarmonicMean",
        "Interval",
        "Mean",
        "MeanAveragePrecision",
        "ProtocolWarning",
        "Ranking",
        "Recall",
        "Reply",
        "RoundsEvaluation",
        "SessionDataset",
        "SubsetRecall",
        "TaskFeatures",
        "TaskRanking",
        "TaskRounds",
        "User",
        "bootstrap",
        "compare",
        "cosines",
        "describe_protocol",
        "evaluate",
        "evaluate_rounds",
        "feature_cosines",
        "default_metric",
        "metric_names",
        "protocol_differences",
        "rank",
        "simulate_rounds",
        "compute_metrics",
        "warn_of_differences",
        "write_circo_submission",
        "write_cirr_submission",
    ],
    "fusecomp.fusions": [
        "ARTEMIS",
        "CIRPLANT",
        "Combiner",
        "Concat",
        "ConvexGate",
        "Direction",
        "MUTAN",
        "RTIC",
        "Slerp",
        "Sum",
        "TIRG",
        "WeightedSum",
    ],
    "fusecomp.images": [
        "ABSENT",
        "By",
        "ON_ERROR",
        "ImageError",
        "ImageLoader",
        "SquarePad",
        "TargetPad",
        "changed_image",
        "clip_transform",
        "file_marks",
        "image_paths",
        "load_available",
        "load_few",
        "load_given",
        "open_image",
        "require_files",
        "require_pillow",
        "rgb",
        "why_unreadable",
    ],
    "fusecomp.losses": [
        "Bank",
        "CosineAlignmentLoss",
        "DistillationLoss",
        "HardNegativeNCE",
        "InfoNCE",
        "LearnableTemperature",
        "MultiPositiveNCE",
        "Queue",
        "SigmoidLoss",
        "TripletMarginLoss",
        "CombinedLoss",
    ],
    "fusecomp.retrieval": [
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
        "compose_parts",
        "rerank",
        "TargetRanks",
        "hits_at_k",
        "median_rank",
        "search_targets",
        "recall_at_k",
        "search",
        "target_rank",
    ],
    "fusecomp.report": [
        "PageOptions",
        "Table",
        "ablation_table",
        "comparison_table",
        "contact_sheet",
        "cosine_figure",
        "interval_table",
        "retrieval_page",
        "retrieval_sheet",
        "training_curves",
        "write_model_card",
        "write_report",
    ],
    "fusecomp.training": [
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
    ],
}


def test_the_packages_are_the_guarded_ones() -> None:
    folders = (path.parent for path in ROOT.rglob("__init__.py"))
    packages = {".".join(folder.relative_to(ROOT.parent).parts) for folder in folders}
    assert packages == {*PUBLIC, "fusecomp._core"}


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_exactly_these(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package])
    assert all(hasattr(module, name) for name in PUBLIC[package])


def undocumented(name: str, value: object) -> Iterator[str]:
    """Yield a class or function, and the public methods of a class, that have no docstring."""
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return
    # A dataclass or named tuple without a docstring gets its signature for one.
    if not value.__doc__ or value.__doc__.startswith(f"{value.__name__}("):
        yield name
    for method, member in vars(value).items() if inspect.isclass(value) else ():
        function = getattr(member, "__func__", getattr(member, "fget", member))
        if not method.startswith("_") and inspect.isfunction(function) and not function.__doc__:
            yield f"{name}.{method}"


def test_everything_public_has_a_docstring() -> None:
    public = [
        (p, n, getattr(importlib.import_module(p), n)) for p, names in PUBLIC.items() for n in names
    ]
    assert [found for p, n, value in public for found in undocumented(f"{p}.{n}", value)] == []

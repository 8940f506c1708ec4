"""The walls of the house: floors, public names, imports."""

import ast
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import fusecomp

ROOT = Path(fusecomp.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

FLOORS = {
    "fusecomp": 4,
    "cli": 4,
    "report": 3,
    "training": 3,
    "evaluation": 2,
    "fusion": 1,
    "losses": 1,
    "encoders": 1,
    "data": 1,
    "retrieval": 1,
    "model": 1,
    "protocols": 0,
    "records": 0,
    "distributed": 0,
    "similarity": 0,
    "checks": 0,
    "files": 0,
    "identity": 0,
    "image_files": 0,
    "checksum": 0,
    "weights": 0,
    "progress": 0,
    "loading": 0,
    "lazy": 0,
    "pictures": 0,
    "preprocessing": 0,
    "modules": 0,
    "reading": 0,
    "randomness": 0,
}

PUBLIC = {
    "fusecomp": [
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
    ],
    "fusecomp.data": [
        "CIRR",
        "FashionIQ",
        "SquarePad",
        "TargetPad",
        "TripletTable",
        "VerifyReport",
        "clip_transform",
        "verify",
        "without",
        "write_cirr_submission",
    ],
    "fusecomp.encoders": [
        "CachedEncoder",
        "DualEncoder",
        "OpenClipEncoder",
        "PartlyCachedEncoder",
        "SentenceTransformersText",
        "TransformersEncoder",
    ],
    "fusecomp.evaluation": [
        "Evaluation",
        "ProtocolWarning",
        "Ranking",
        "TaskFeatures",
        "TaskRanking",
        "combine",
        "describe_protocol",
        "evaluate",
        "headline",
        "metric_names",
        "protocol_differences",
        "rank",
        "score",
    ],
    "fusecomp.fusion": ["Combiner", "Sum"],
    "fusecomp.losses": [
        "CosineAlignment",
        "Distill",
        "HardNegativeNCE",
        "InfoNCE",
        "LearnableTemperature",
        "MultiPositive",
        "Queue",
        "Sigmoid",
        "TripletMargin",
        "WeightedSum",
    ],
    "fusecomp.retrieval": [
        "Ranked",
        "hits_at_k",
        "median_rank",
        "rank_targets",
        "recall_at_k",
        "search",
        "target_rank",
    ],
    "fusecomp.report": [
        "Comparison",
        "Cosines",
        "Interval",
        "Table",
        "ablation_table",
        "bootstrap",
        "compare",
        "comparison_table",
        "contact_sheet",
        "cosine_figure",
        "cosines",
        "feature_cosines",
        "interval_table",
        "retrieval_page",
        "retrieval_sheet",
        "training_curves",
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
        "fit",
        "presets",
    ],
}


def unit_of(parts: tuple[str, ...]) -> str:
    """The package or top file that a module belongs to; the top itself is "fusecomp"."""
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "fusecomp"


def imports_of(path: Path) -> Iterator[tuple[str, ...]]:
    """Every module or name of fusecomp that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the import from fusecomp in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (parts for name in names if (parts := tuple(name.split(".")))[0] == "fusecomp")


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def test_every_file_has_a_floor() -> None:
    units = {path.relative_to(ROOT).with_suffix("").parts[0] for path in FILES}
    assert units - {"__init__"} == set(FLOORS) - {"fusecomp"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_come_from_a_lower_floor_or_the_own_folder(path: Path) -> None:
    own = unit_of(module_of(path))
    for parts in imports_of(path):
        other = unit_of(parts)
        both_on_the_ground = FLOORS[own] == FLOORS[other] == 0
        assert own == other or FLOORS[other] < FLOORS[own] or both_on_the_ground, ".".join(parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_stay_in_their_folder(path: Path) -> None:
    for parts in imports_of(path):
        if any(part.startswith("_") and not part.startswith("__") for part in parts):
            assert unit_of(parts) == unit_of(module_of(path)) != "fusecomp", ".".join(parts)


def test_the_packages_are_the_guarded_ones() -> None:
    packages = {".".join(module_of(path)) for path in FILES if path.name == "__init__.py"}
    assert packages == set(PUBLIC)


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_exactly_these(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package])
    assert all(hasattr(module, name) for name in PUBLIC[package])


def modules() -> Iterator[ModuleType]:
    yield fusecomp
    for info in pkgutil.walk_packages(fusecomp.__path__, "fusecomp."):
        yield importlib.import_module(info.name)


def undocumented(module: ModuleType) -> Iterator[str]:
    """Public classes, functions and methods of a module without a docstring of their own."""
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        # A dataclass or named tuple without a docstring gets its signature for one.
        if not value.__doc__ or value.__doc__.startswith(f"{name}("):
            yield f"{module.__name__}.{name}"
        for method, member in vars(value).items() if inspect.isclass(value) else ():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if not method.startswith("_") and inspect.isfunction(function) and not function.__doc__:
                yield f"{module.__name__}.{name}.{method}"


def test_everything_public_has_a_docstring() -> None:
    assert [name for module in modules() for name in undocumented(module)] == []


def test_no_assert_stands_in_the_library() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}"


OPTIONAL = (
    "PIL",
    "matplotlib",
    "transformers",
    "open_clip",
    "torchvision",
    "tqdm",
    "tensorboard",
    "wandb",
    "safetensors",
    "sentence_transformers",
)
MEASURE = f"""
import sys, time
import numpy, torch
before, start = set(sys.modules), time.perf_counter()
import fusecomp
seconds = time.perf_counter() - start
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(seconds, *new.intersection({OPTIONAL}))
"""


@pytest.mark.slow
def test_importing_is_quick_and_loads_nothing_optional(tmp_path: Path) -> None:
    # An installed package has its bytecode; without it, this would time the compiler.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    times = []
    for _ in range(6):
        output = subprocess.run(
            [sys.executable, "-c", MEASURE],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | bytecode,
        ).stdout.split()
        assert output[1:] == []
        times.append(float(output[0]))
        if times[-1] < 0.05:
            break
    assert min(times) < 0.05

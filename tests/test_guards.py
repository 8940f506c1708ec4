"""The walls of the house: floors, imports, sizes."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import house

import fusecomp

ROOT = Path(fusecomp.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
CI = (ROOT.parent / ".ci/run").read_text()

# A file imports from lower floors, or from its own folder. Distributed is at the bottom too: the
# files of the core that know DDP and FSDP2 use it.
FLOORS = {
    "_core": 0,
    "types": 0,
    "distributed": 0,
    "images": 1,
    "datasets": 2,
    "encoders": 2,
    "fusions": 2,
    "losses": 2,
    "retrieval": 2,
    "caching": 3,
    # It rebuilds the fusion of a saved model.
    "model": 3,
    "evaluation": 4,
    "report": 5,
    "training": 5,
    "fusecomp": 6,
    "cli": 7,
    "__main__": 8,
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


def misplaced_imports() -> Iterator[str]:
    for path in FILES:
        own = unit_of(module_of(path))
        for parts in imports_of(path):
            other = unit_of(parts)
            ground = FLOORS[own] == FLOORS[other] == 0
            if not (own == other or FLOORS[other] < FLOORS[own] or ground):
                yield f"{path.relative_to(ROOT)} imports {'.'.join(parts)}"


def test_imports_come_from_a_lower_floor_or_the_own_folder() -> None:
    assert list(misplaced_imports()) == []


def is_private(parts: tuple[str, ...]) -> bool:
    """The core as a whole is private to the package, its files are not to each other's rooms."""
    return any(
        part.startswith("_") and not part.startswith("__") for part in parts if part != "_core"
    )


def strayed_names() -> Iterator[str]:
    for path in FILES:
        own = unit_of(module_of(path))
        for parts in imports_of(path):
            if is_private(parts) and not unit_of(parts) == own != "fusecomp":
                yield f"{path.relative_to(ROOT)} imports {'.'.join(parts)}"


def test_private_names_stay_in_their_folder() -> None:
    assert list(strayed_names()) == []


def test_examples_use_public_names_only() -> None:
    examples = sorted((ROOT.parent / "examples").rglob("*.py"))
    used = [(path, parts) for path in examples for parts in imports_of(path)]
    assert [f"{path.name} imports {'.'.join(p)}" for path, p in used if is_hidden(p)] == []


def is_hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith("_") for part in parts)


def import_circles() -> set[tuple[str, ...]]:
    """Files that import each other while they are loaded, by way of others too."""
    names = {".".join(module_of(path)): path for path in FILES}
    needs = {name: {n for n in top_imports(path) if n in names} for name, path in names.items()}
    reach = {name: set(found) for name, found in needs.items()}
    for middle in names:
        for name in names:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    return {tuple(sorted((a, b))) for a in names for b in reach[a] if a != b and a in reach[b]}


def top_imports(path: Path) -> Iterator[str]:
    """The files that are loaded when a file is."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_file_imports_itself_by_way_of_others() -> None:
    circles = import_circles()
    # A package and the files that it collects.
    assert {pair for pair in circles if not pair[1].startswith(f"{pair[0]}.")} == set()


def test_the_house_stays_readable() -> None:
    measured = house.measure(ROOT.parent)
    most = {
        "single files at the top": 6,
        "`getattr` + `hasattr` a 1,000 lines of code": 3,
        "`Any` a 1,000 lines of code": 10,
        "files above 350 lines": 0,
        "functions above 40 lines": 0,
        '"picture" in the package': 0,
    }
    assert {name: measured[name] for name in most if measured[name] > most[name]} == {}


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    bare = re.compile(r'^\s*r?"""(What|Of|Those|That of|As)\b')
    paths = [*FILES, *(ROOT.parent / "examples").rglob("*.py")]
    lines = ((path, line) for path in paths for line in path.read_text().splitlines())
    assert [f"{path}: {line.strip()}" for path, line in lines if bare.match(line)] == []


def test_every_test_that_needs_an_extra_runs_where_it_is_installed() -> None:
    run = [ROOT.parent / name for name in re.findall(r"tests/[\w/.]+", CI)]
    needs = re.compile(r'reason="needs the extra (?!report)\w')  # report comes with test
    left_out = [
        str(path.relative_to(ROOT.parent))
        for path in (ROOT.parent / "tests").rglob("test_*.py")
        if needs.search(text := path.read_text()) and "mark.heavy" not in text
        if not any(path.is_relative_to(place) for place in run)
    ]
    assert left_out == []


def test_no_assert_stands_in_the_library() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}"


OPTIONAL = (
    "PIL",
    "matplotlib",
    "pandas",
    "jinja2",
    "transformers",
    "open_clip",
    "torchvision",
    "tqdm",
    "tensorboard",
    "wandb",
    "safetensors",
    "sentence_transformers",
    "faiss",
    "pymilvus",
    "milvus_lite",
)
MEASURE = f"""
import sys, time
began = time.process_time()
import torch
before, between = set(sys.modules), time.process_time()
import fusecomp
ended, new = time.process_time(), set(sys.modules) - before
fusecomp.Trainer, fusecomp.evaluate
optional = {{name.partition(".")[0] for name in set(sys.modules) - before}} & {{*{OPTIONAL}}}
print((ended - between) / (between - began), len(new), *optional)
"""


def test_importing_costs_little_beside_torch_and_loads_nothing_optional() -> None:
    # An installed package has its bytecode; without it, this would time the compiler.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    shares: list[float] = []
    while len(shares) < 4 and min(shares, default=1) >= 0.03:
        share, modules, *optional = subprocess.run(
            [sys.executable, "-c", MEASURE],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        ).stdout.split()
        assert (int(modules), optional) == (1, [])  # the rest is loaded when it is asked for
        shares.append(float(share))
    assert min(shares) < 0.03

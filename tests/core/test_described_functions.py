"""Functions are told apart by their code and by what they use, alike in every process."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from torch import nn

from fusecomp._core.identity import describe


def doubled(value: int) -> int:
    return 2 * value


def test_a_function_is_described_by_its_code() -> None:
    same = describe(lambda x: x + 1), describe(lambda x: x + 1)
    assert same[0] == same[1]
    assert same[0] != describe(lambda x: x + 2)
    assert describe(doubled).startswith("doubled ")


class Plain:
    """Without a repr of its own."""


def test_an_object_that_tells_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Plain object at .*give it a __repr__"):
        describe(Plain())
    assert describe(nn.Linear(2, 3)) != describe(nn.Linear(2, 4))
    assert describe(partial(doubled, 2)) != describe(partial(doubled, 3))


LOAD = """
def load(path, *, size=224):
    kept = {".png", ".jpg", ".webp"}
    return [p for p in [path] if p.suffix in {".png", ".jpg", ".webp"} or (lambda: size)()]
"""
SHOW = """
from fusecomp._core.identity import describe
print(describe(load))
"""


def test_a_function_is_described_alike_in_every_process_in_a_script_and_imported(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.py").write_text(f"# Further down.\n{LOAD}")
    (tmp_path / "1.py").write_text(LOAD + SHOW)
    (tmp_path / "3.py").write_text(f"from mine import load\n{SHOW}")
    root = str(Path(__file__).parents[2])
    outputs = {
        subprocess.run(
            [sys.executable, tmp_path / f"{seed}.py"],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "3")  # these put the set of suffixes in another order
    }
    assert len(outputs) == 1
    assert outputs.pop().startswith("load ")


def test_defaults_are_part_of_a_function() -> None:
    def first(path: str, *, size: int = 224) -> int:
        return size

    def second(path: str, *, size: int = 288) -> int:
        return size

    assert describe(first).split()[-1] != describe(second).split()[-1]


SCALE = 2.0
SIZES = [1, 2]
SEEN: list[int] = []  # what was done, no setting


class Transform:
    """A callable with a repr."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __repr__(self) -> str:
        return f"Transform({self.size})"

    def __call__(self, value: float) -> float:
        return value


transform = Transform(1)


def transformed(value: float) -> float:
    return transform(value)


def sized(value: float) -> float:
    SEEN.append(1)
    return value * SIZES[0]


def scaled(value: float) -> float:
    return SCALE * value


def twice_scaled(value: float) -> float:
    return scaled(scaled(value))


@pytest.mark.parametrize("function", [scaled, twice_scaled])
def test_constants_and_functions_of_its_file_are_part_of_a_function(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[float], float]
) -> None:
    before = describe(function)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert describe(function) != before


def test_transforms_and_constant_lists_of_its_file_are_part_of_a_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = describe(transformed), describe(sized)
    monkeypatch.setitem(globals(), "transform", Transform(2))
    monkeypatch.setitem(globals(), "SIZES", [3, 2])
    assert describe(transformed) != before[0]
    assert describe(sized) != before[1]

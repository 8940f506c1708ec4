"""What holds for each drawn dataset."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from drawn import minicirr, minifashion

Render = Callable[..., Path]
DRAWN = {
    "minifashion": partial(
        minifashion.render, train_images=40, val_images=30, train_triplets=30, val_queries=12
    ),
    "minicirr": partial(minicirr.render, train_groups=3, val_groups=2, test_groups=1),
}


@pytest.fixture(params=DRAWN)
def render(request: pytest.FixtureRequest) -> Render:
    return DRAWN[request.param]


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_the_same_seed_draws_the_same_files(render: Render, tmp_path: Path) -> None:
    one, two, other = (
        render(tmp_path / name, seed) for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    assert contents(one) == contents(two)
    assert contents(one) != contents(other)


def test_what_is_there_is_not_drawn_again(render: Render, tmp_path: Path) -> None:
    root = render(tmp_path / "set")
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert render(tmp_path / "set") == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times
    with pytest.raises(FileExistsError, match="does not hold the data set with the settings"):
        render(tmp_path / "set", seed=1)


def test_a_folder_of_something_else_is_left_alone(render: Render, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        render(tmp_path)
    assert contents(tmp_path) == {"letter.txt": b"dear"}

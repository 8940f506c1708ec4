"""The progress line."""

import io
from types import SimpleNamespace

import pytest

from fusecomp.progress import progress


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """What a person would see."""
    screen = Screen()
    monkeypatch.setattr("fusecomp.progress.sys", SimpleNamespace(stderr=screen))
    return screen


def last_line(screen: Screen) -> str:
    text = screen.getvalue()
    assert text.endswith("\n")
    return text.rstrip("\n").rpartition("\r")[2]


def test_nothing_is_drawn_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(iter("abc"), 3, "reading", "files")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_items_pass_unchanged_and_the_bar_ends_full(terminal: Screen) -> None:
    assert list(progress([1, 2, 3, 4], 7, "encoding", "images", per_item=2)) == [1, 2, 3, 4]
    line = last_line(terminal)
    assert line.startswith("encoding ")
    assert f"[{'#' * 24}] 7/7 images" in line


def test_units_done_before_are_counted(terminal: Screen) -> None:
    list(progress([1], 4, "training", "steps", start=2))
    assert f"[{'#' * 18}{'-' * 6}] 3/4 steps" in last_line(terminal)


def test_an_error_inside_leaves_the_line_where_it_stood(terminal: Screen) -> None:
    with pytest.raises(RuntimeError):
        for item in progress(range(4), 4, "training", "steps"):
            if item == 2:
                raise RuntimeError
    assert "4/4" not in last_line(terminal)


def test_no_items_at_all_draw_a_full_bar(terminal: Screen) -> None:
    assert list(progress([], 0, "encoding", "texts")) == []
    assert "0/0 texts" in last_line(terminal)


def test_the_line_is_redrawn_while_it_runs(
    terminal: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("fusecomp.progress.time.monotonic", lambda: float(next(clock)))
    list(progress(range(4), 4, "training", "steps"))
    drawn = [line for line in terminal.getvalue().split("\r") if line]
    assert [f"{n}/4 steps" in line for n, line in enumerate(drawn, 1)] == [True] * 4 + [False]
    assert "s left" in drawn[0]
    assert "s left" not in drawn[-1]

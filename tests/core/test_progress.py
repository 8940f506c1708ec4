"""The progress line."""

import io
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from fusecomp._core.progress import progress, say


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """What a person would see."""
    screen = Screen()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("fusecomp._core.progress.sys", SimpleNamespace(stderr=screen))
    return screen


class Clock:
    """Stands still unless it is told to go on."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def taking(self, seconds: float, count: int) -> Iterator[int]:
        """Items that take so long each."""
        for number in range(count):
            self.now += seconds
            yield number


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("fusecomp._core.progress.time", clock)
    return clock


def last_line(screen: Screen) -> str:
    text = screen.getvalue()
    assert text.endswith("\n")
    return text.rstrip("\n").rpartition("\r")[2]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_short_phase_writes_nothing_into_a_log(
    capsys: pytest.CaptureFixture[str], clock: Clock, count: int
) -> None:
    items = list(range(count))
    assert list(progress(clock.taking(1.2, count), count, "reading", "files")) == items
    assert capsys.readouterr() == ("", "")


def test_a_long_phase_writes_plain_lines_into_a_log(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    list(progress(clock.taking(4, 20), 45, "reading", "files", per_item=2, start=5))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "reading: 21/45 files, 0.5/s, 48 s left\n"
        "reading: 37/45 files, 0.5/s, 16 s left\n"
        "reading: 45/45 files, 0.5/s, 80 s\n"
    )


def test_a_log_says_where_an_error_came(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with pytest.raises(RuntimeError):
        for item in progress(clock.taking(3, 4), 4, "training", "steps"):
            if item == 2:
                raise RuntimeError
    assert capsys.readouterr().err == "training: 2/4 steps, 0.22/s, 9 s, stopped\n"


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


def test_the_line_is_redrawn_while_it_runs(terminal: Screen, clock: Clock) -> None:
    list(progress(clock.taking(0.5, 4), 4, "training", "steps"))
    drawn = [line.partition("] ")[2].strip() for line in terminal.getvalue().split("\r") if line]
    assert drawn == [
        "1/4 steps, 2/s, 2 s left",
        "2/4 steps, 2/s, 1 s left",
        "3/4 steps, 2/s, 0 s left",
        "4/4 steps, 2/s",
        "4/4 steps, 2/s, 2 s",
    ]


def test_many_quick_items_are_not_drawn_one_by_one(terminal: Screen, clock: Clock) -> None:
    list(progress(clock.taking(0.001, 1000), 1000, "training", "steps"))
    assert 5 < terminal.getvalue().count("\r") < 12


def test_a_long_label_keeps_the_line_short(terminal: Screen) -> None:
    list(progress([], 0, "training encoder.text.*, encoder.image.*", "steps"))
    assert last_line(terminal).startswith("training encoder.text.*, enc [#")


class Unwritable(io.StringIO):
    """A stream that fails at whatever it is asked, or at writing alone."""

    def __init__(self, error: Exception, terminal: bool | None) -> None:
        super().__init__()
        self.error = error
        self.terminal = terminal

    def isatty(self) -> bool:
        if self.terminal is None:
            raise self.error
        return self.terminal

    def write(self, text: str) -> int:
        raise self.error


STREAMS = {
    "none": None,
    "no stream at all": object(),
    **{
        f"{error!r}, terminal {terminal}": Unwritable(error, terminal)
        for error in (
            ValueError("I/O operation on closed file"),
            BrokenPipeError(32, "Broken pipe"),
            OSError(28, "No space left on device"),
            UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range"),
        )
        for terminal in (None, False, True)
    },
}


@pytest.mark.parametrize("name", STREAMS)
def test_where_nothing_can_be_written_the_work_goes_on(
    name: str, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr("fusecomp._core.progress.sys", SimpleNamespace(stderr=STREAMS[name]))
    assert list(progress(clock.taking(40, 5), 5, "reading", "files")) == list(range(5))


def test_a_stream_that_is_closed_half_way_stops_nothing(terminal: Screen, clock: Clock) -> None:
    seen = []
    for number in progress(clock.taking(1, 5), 5, "reading", "files"):
        seen.append(number)
        if number == 2:
            terminal.close()
    assert seen == list(range(5))


@pytest.mark.parametrize("columns", [20, 80, 99, 100, 200])
def test_no_line_is_longer_than_the_terminal(
    terminal: Screen, clock: Clock, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that wraps would not be drawn over, but below the last one."""
    monkeypatch.setenv("COLUMNS", str(columns))
    note = "epoch 3: loss 0.1234, mean 36.94"
    list(progress(clock.taking(1, 4), 4, "training", "steps", note=lambda: note))
    lines = terminal.getvalue().rstrip("\n").split("\r")[1:]
    assert {len(line) for line in lines} == {columns - 1}
    assert ("4/4 steps" in lines[-1]) == (columns > 20)
    assert (note in lines[-1]) == (columns > 80)


def test_a_note_stands_at_the_end_of_each_line(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    notes = iter(["", "epoch 1: loss 2", "epoch 2: loss 1"])
    list(progress(clock.taking(31, 2), 2, "training", "steps", note=lambda: next(notes)))
    assert capsys.readouterr().err == (
        "training: 1/2 steps, 0.032/s, 31 s left\n"
        "training: 2/2 steps, 0.032/s; epoch 1: loss 2\n"
        "training: 2/2 steps, 0.032/s, 62 s; epoch 2: loss 1\n"
    )


@pytest.mark.parametrize(("value", "silent"), [("1", True), ("yes", True), ("0", False), ("", 0)])
def test_one_variable_turns_everything_off(
    terminal: Screen, monkeypatch: pytest.MonkeyPatch, value: str, silent: bool
) -> None:
    monkeypatch.setenv("FUSECOMP_QUIET", value)
    assert list(progress([1, 2], 2, "training", "steps")) == [1, 2]
    say("a line")
    assert (terminal.getvalue() == "") == silent

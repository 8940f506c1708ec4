"""What all figures share: fonts, and one warning where a font lacks characters."""

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from toy import Toy

import fusecomp as fc
from fusecomp.report import contact_sheet, retrieval_sheet, training_curves, write_report

DRESS = "\N{DRESS}"


@pytest.fixture
def font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A font of one character, a square in the place of the dress; forgotten after the test."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])
    pen = TTGlyphPen(None)
    for move, corner in zip(
        (pen.moveTo, pen.lineTo, pen.lineTo, pen.lineTo),
        ((0, 0), (0, 800), (800, 800), (800, 0)),
        strict=True,
    ):
        move(corner)
    pen.closePath()
    build = FontBuilder(1000)
    build.setupGlyphOrder([".notdef", "dress"])
    build.setupCharacterMap({ord(DRESS): "dress"})
    build.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "dress": pen.glyph()})
    build.setupHorizontalMetrics({".notdef": (1000, 0), "dress": (1000, 0)})
    build.setupHorizontalHeader(ascent=800, descent=-200)
    build.setupNameTable({"familyName": "Dresses", "styleName": "Regular"})
    build.setupOS2()
    build.setupPost()
    path = tmp_path / "dresses.ttf"
    build.save(path)
    return path


def captioned(data: Toy, text: str) -> list[fc.Triplet]:
    return [replace(data.triplets()[0], texts=(text,))]


def test_a_caption_that_no_font_draws_warns_once_and_names_the_way_out(
    data: Toy, tmp_path: Path, drawn: list[str]
) -> None:
    triplets = captioned(data, f"a {DRESS}{DRESS}\udce9, red")
    with pytest.warns(UserWarning, match="no font here draws .*: pass font=") as caught:
        contact_sheet(triplets, data, tmp_path / "sheet.png")
    assert [warning.filename for warning in caught] == [__file__]
    assert "\n" not in str(caught[0].message)
    assert f"'\\udce9{DRESS}'" in str(caught[0].message)
    assert "a □□□, red" in drawn
    assert (tmp_path / "sheet.png").exists()


def test_a_font_file_draws_what_the_default_lacks(
    data: Toy, tmp_path: Path, font: Path, drawn: list[str]
) -> None:
    text = f"a {DRESS} in red"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        contact_sheet(captioned(data, text), data, tmp_path / "one.png", font=font)
        contact_sheet(captioned(data, text), data, tmp_path / "again.png", font="Dresses")
    assert drawn.count(text) == 2
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    with pytest.warns(UserWarning, match="no font here draws"):
        contact_sheet(captioned(data, text), data, tmp_path / "boxes.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "boxes.png").read_bytes()


def test_a_report_is_drawn_in_the_font(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path, font: Path
) -> None:
    ranking = evaluation.ranking[""]
    queries = [replace(query, texts=(DRESS,)) for query in ranking.task.queries]
    ranking = replace(ranking, task=replace(ranking.task, queries=queries))
    dressed = replace(evaluation, ranking=replace(evaluation.ranking, tasks=[ranking]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report({"one": dressed}, data, tmp_path / "out", title="Dresses", font=font)


def figures(
    data: Toy, evaluation: fc.Evaluation, out: Path, font: str | None = None
) -> list[Callable[[], None]]:
    """All that is drawn, cosines apart."""
    return [
        lambda: contact_sheet(data.triplets(), data, out / "a.png", font=font),
        lambda: retrieval_sheet(evaluation.ranking[""], data, out / "a.png", font=font),
        lambda: training_curves(out, out / "a.png", font=font),
        lambda: write_report({"one": evaluation}, data, out, title="One", font=font),
    ]


@pytest.mark.parametrize("font", ["No such family", "broken.ttf"])
def test_a_font_that_does_not_exist_is_named_before_anything_is_written(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path, font: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.ttf").write_bytes(b"no font")
    for draw in figures(data, evaluation, tmp_path / "out", font):
        with pytest.raises(ValueError, match=f"font must be a font file .*, got '{font}'"):
            draw()
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_the_extra_is_named_before_anything_is_written(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in figures(data, evaluation, tmp_path / "out"):
        with pytest.raises(ImportError, match=r"fusecomp\[report\]"):
            draw()
    assert not (tmp_path / "out").exists()


def test_texts_are_no_formulas(data: Toy, tmp_path: Path, drawn: list[str]) -> None:
    contact_sheet(captioned(data, r"costs $\foo$"), data, tmp_path / "sheet.png")
    assert r"costs $\foo$" in drawn


def test_a_font_that_is_no_path_is_named(data: Toy, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="font must be a path, got 3"):
        contact_sheet(data.triplets(), data, tmp_path / "a.png", font=3)  # type: ignore[arg-type]


def test_wide_characters_take_two_places_of_a_line(
    data: Toy, tmp_path: Path, drawn: list[str]
) -> None:
    with pytest.warns(UserWarning, match="no font here draws"):
        contact_sheet(captioned(data, "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 40), data, tmp_path / "a")
    lines = next(text for text in drawn if "□" in text).split("\n")
    assert [len(line) for line in lines] == [15, 15, 10]

"""The figure of cosines."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import random_model
from PIL import Image

from fusecomp.datasets import FashionIQ
from fusecomp.evaluation import Cosines, ProtocolWarning, cosines
from fusecomp.report import cosine_figure


@pytest.fixture
def row(tiny_fashioniq: Path) -> Cosines:
    data = FashionIQ(tiny_fashioniq, "val")
    return cosines(random_model(data), data)


def test_each_row_has_its_panel_name_and_gap(
    row: Cosines, tmp_path: Path, drawn: list[str]
) -> None:
    cosine_figure({"plain, Sum": row, "tuned, Sum": row}, tmp_path / "cosines.png")
    with Image.open(tmp_path / "cosines.png") as two:
        assert two.format == "PNG"
        colours = two.convert("RGB").getcolors(1_000_000)
        assert colours is not None
        assert len(colours) > 5
    assert {"plain, Sum", "tuned, Sum"} <= set(drawn)
    assert f"gap {row.gap:.3f} ({row.separation:.2f} standard deviations)" in drawn
    assert "dataset FashionIQ, split val, gallery original, reference kept, captions both" in drawn
    cosine_figure({"one": row}, tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as one:
        assert one.height < two.height


def test_scores_of_a_similarity_have_an_axis_and_a_name_of_their_own(
    row: Cosines, tmp_path: Path, drawn: list[str]
) -> None:
    late = replace(
        row,
        measure="similarity",
        target=replace(row.target, bounds=(10.0, 30.0)),
        others=replace(row.others, bounds=(10.0, 30.0)),
    )
    cosine_figure({"Sum": row, "MaxSim": late}, tmp_path / "both.png")
    named = [text for text in drawn if text.endswith(" with the query; dashed: means")]
    assert [text.split()[0] for text in dict.fromkeys(named)] == ["cosine", "similarity"]
    ticks = [float(text) for text in drawn if re.fullmatch(r"[\d.]+", text)]
    assert 1 < max(ticks) < 31
    assert min(ticks) < 1


def test_other_protocols_are_warned_of(row: Cosines, tmp_path: Path) -> None:
    other = replace(row, protocol={**row.protocol, "gallery": "val"})
    with pytest.warns(ProtocolWarning, match="'b' and 'a' do not compare: gallery val / original"):
        cosine_figure({"a": row, "b": other}, tmp_path / "cosines.png")


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one; got none"):
        cosine_figure({}, tmp_path / "cosines.png")

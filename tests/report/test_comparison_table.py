"""One's own result among the published ones."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import random_evaluation

import fusecomp as fc
from fusecomp.datasets import CIRR, FashionIQ, drop_images
from fusecomp.evaluation import ProtocolWarning
from fusecomp.report import comparison_table
from fusecomp.report._score_tables import published_rows

PUBLISHED = list(published_rows())

# The published numbers


def sections(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    """The rows of the two tables of published numbers."""
    published = text.split("## Published numbers")[1].split("\n## ")[0]
    for name, part in zip(
        ("FashionIQ", "CIRR"), published.split("CIRR test1, R@1/5/10/50"), strict=True
    ):
        lines = [line for line in part.splitlines() if line.startswith("|")][2:]
        yield name, [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_numbers_are_those_that_are_verified(shared: Callable[[str], Path]) -> None:
    found, secondary = [], []
    for dataset, rows in sections(shared("facts.md").read_text()):
        for *cells, mark in rows:
            assert "[M]" not in mark
            numbers = re.findall(r"\d+\.\d+", " ".join(cells[1:]))
            found += [(dataset, float(number)) for number in numbers]
            secondary += [float(cells[-1])] if "Rs@1 [C]" in mark else []
    ours = [(row.protocol["dataset"], v) for row in PUBLISHED for v in row.metrics.values()]
    assert sorted(found) == sorted(ours)
    assert len(ours) > 90
    assert secondary == [row.metrics[name] for row in PUBLISHED for name in row.secondary]


def test_every_row_has_source_and_protocol() -> None:
    for row in PUBLISHED:
        assert row.source
        assert {"dataset", "split", "gallery"} <= set(row.protocol)
        known = {*row.protocol, *row.unstated}
        assert {"reference"} <= known
        assert ("captions" in known) == (row.protocol["dataset"] == "FashionIQ")
        assert not set(row.protocol) & set(row.unstated)


def test_the_page_on_fashioniq_has_the_same_numbers() -> None:
    page = Path(fc.__file__).parents[1] / "docs" / "reproduce.md"
    lines = page.read_text().split("## Published numbers")[1].splitlines()
    rows = [re.findall(r"(\d+\.\d+)/(\d+\.\d+)", line) for line in lines if line.startswith("|")]
    shown = [[float(n) for pair in row for n in pair] for row in rows if row]
    for row, published in zip(shown, PUBLISHED, strict=False):
        assert row == [v for name, v in published.metrics.items() if name != "mean"]
    assert len(shown) == 4


# The table


@pytest.fixture
def own(tiny_fashioniq: Path) -> fc.Evaluation:
    return random_evaluation(FashionIQ(tiny_fashioniq, "val"))


def test_ones_own_row_stands_among_those_of_its_protocol(own: fc.Evaluation) -> None:
    table = comparison_table({"mine": own})
    names = [row[0] for row in table.rows]
    assert names[-1] == "mine"
    assert "text encoder tuned + Combiner" in names
    assert "SPRC, BLIP-2" in names
    assert list(table.rows[-1][1:-1]) == [f"{value:.2f}" for value in own.values()]
    by_name = {row[0]: row for row in table.rows}
    cvprw = by_name["text encoder tuned + Combiner"]
    assert cvprw[1:7] == ("33.81", "59.40", "39.99", "60.45", "41.41", "65.37")
    assert cvprw[7:9] == ("", "")
    assert cvprw[-1] == "Baldrati et al., CVPR Workshops 2022"
    assert by_name["SPRC, BLIP-2"][-1] == "SPRC, ICLR 2024; captions not stated"


def test_other_protocols_are_set_apart_and_say_why(own: fc.Evaluation) -> None:
    apart = {row[0]: reason for row, reason in comparison_table({"mine": own}).apart}
    assert apart == {
        "ARTEMIS, first published set": "reference excluded / kept, captions both-orders / both",
        "ARTEMIS, second published set": "reference excluded / kept, captions both-orders / both",
        "CIRPLANT, w/ OSCAR": "gallery val / original",
        "TIRG": "reference excluded / kept",
    }


def test_what_is_apart_depends_on_ones_own_protocol(tiny_fashioniq: Path) -> None:
    easier = FashionIQ(tiny_fashioniq, "val", gallery="val", exclude_reference=True)
    table = comparison_table({"mine": random_evaluation(easier)})
    assert [row[0] for row in table.rows] == ["CIRPLANT, w/ OSCAR", "mine"]
    reasons = {row[0]: reason for row, reason in table.apart}
    assert reasons["TIRG"] == "gallery original / val"
    assert reasons["SPRC, BLIP-2"] == "gallery original / val, reference kept / excluded"


def test_missing_images_set_everything_else_apart(tiny_fashioniq: Path) -> None:
    data = drop_images(FashionIQ(tiny_fashioniq, "val"), ["Dval00"])
    table = comparison_table({"mine": random_evaluation(data)})
    assert [row[0] for row in table.rows] == ["mine"]
    assert all("missing not said / 1 of 24 queries" in reason for _, reason in table.apart)


def test_a_validation_result_does_not_compare_with_cirrs_test(tiny_cirr: Path) -> None:
    table = comparison_table({"mine": random_evaluation(CIRR(tiny_cirr, "val"))})
    assert table.head == ("", "R@1", "R@5", "R@10", "R@50", "Rs@1", "source")
    assert [row[0] for row in table.rows] == ["mine"]
    assert {reason for _, reason in table.apart} == {"split test1 / val"}
    assert len(table.apart) == 9
    assert "text encoder tuned + Combiner: Rs@1 from a secondary list" in str(table)


def test_of_some_categories_no_mean_is_compared(tiny_fashioniq: Path) -> None:
    own = random_evaluation(FashionIQ(tiny_fashioniq, "val", ["dress"]))
    table = comparison_table({"mine": own})
    assert table.head == ("", "dress R@10", "dress R@50", "source")
    assert "SPRC, BLIP-2" not in str(table)  # of which only means are known


def test_several_own_rows(own: fc.Evaluation, tiny_fashioniq: Path) -> None:
    other = random_evaluation(FashionIQ(tiny_fashioniq, "val", captions="averaged"))
    with pytest.warns(ProtocolWarning, match="'two' and 'one' do not compare: captions") as caught:
        table = comparison_table({"one": own, "two": other})
    assert caught[0].filename == __file__
    assert table.rows[-1][0] == "one"
    assert table.apart[-1][0][0] == "two"


def test_json_and_latex(own: fc.Evaluation) -> None:
    table = comparison_table({"mine": own})
    content = json.loads(json.dumps(table.to_dict()))
    rows = {row["name"]: row for row in content["rows"]}
    assert rows["mine"]["metrics"] == dict(own)
    assert rows["TIRG"]["differs_in"] == ["reference excluded / kept"]
    assert rows["ReCALL, Qwen2.5-VL-7B"]["unstated"] == ["reference", "captions"]
    assert rows["text encoder tuned + Combiner"]["protocol"]["captions"] == "both"
    assert r"\quad differs in gallery val / original" in table.latex()


def test_what_has_no_published_numbers_is_named(tiny_fashioniq: Path, own: fc.Evaluation) -> None:
    drawn = random_evaluation(FashionIQ(tiny_fashioniq, "val", name="MiniFashion"))
    with pytest.raises(
        ValueError, match="of the dataset 'MiniFashion'; there is of FashionIQ, CIRR"
    ):
        comparison_table({"mine": drawn})
    with pytest.raises(ValueError, match="at least one; got none"):
        comparison_table({})
    with pytest.raises(ValueError, match="none of the metrics dress/recall@7 is published"):
        comparison_table({"mine": replace(own, metrics={"dress/recall@7": 1.0})})
    fewer = random_evaluation(FashionIQ(tiny_fashioniq, "val", ["dress"]))
    with pytest.raises(ValueError, match="'fewer' dress/recall@10, "):
        comparison_table({"mine": own, "fewer": fewer})

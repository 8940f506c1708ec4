"""Tables in Markdown, LaTeX and JSON."""

import json
import re
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from evaluations import random_evaluation
from hypothesis import given
from hypothesis import strategies as st

import fusecomp as fc
from fusecomp.datasets import CIRR, FashionIQ, drop_images
from fusecomp.evaluation import ProtocolWarning, bootstrap, describe_protocol
from fusecomp.report import Table, ablation_table, interval_table


@pytest.fixture
def evaluation(tiny_fashioniq: Path) -> fc.Evaluation:
    return random_evaluation(FashionIQ(tiny_fashioniq, "val", ["dress"]))


def scaled(evaluation: fc.Evaluation) -> fc.Evaluation:
    return replace(evaluation, metrics={n: v / 3 for n, v in evaluation.items()})


def cells_of(table: Table) -> list[list[str]]:
    lines = [line for line in str(table).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_holds_every_value(evaluation: fc.Evaluation) -> None:
    other = scaled(evaluation)
    table = ablation_table({"one": evaluation, "the other": other})
    lines = str(table).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    cells = cells_of(table)
    assert cells[0] == ["", "dress R@10", "dress R@50", "mean R@10", "mean R@50", "mean"]
    assert all(set(rule) <= {"-", ":"} for rule in cells[1])
    assert cells[2] == ["one", *(f"{value:.2f}" for value in evaluation.values())]
    assert cells[3] == ["the other", *(f"{value / 3:.2f}" for value in evaluation.values())]
    assert len(cells) == 4


def test_every_form_has_the_protocol(evaluation: fc.Evaluation) -> None:
    for table in (ablation_table({"one": evaluation}), interval_table(evaluation, resamples=9)):
        protocol = describe_protocol(evaluation.protocol)
        assert protocol in str(table)
        assert f"{protocol}\n" in table.latex()
        assert table.to_dict()["protocol"] == dict(evaluation.protocol)


def test_json_has_the_unrounded_values(evaluation: fc.Evaluation) -> None:
    content = json.loads(json.dumps(ablation_table({"one": scaled(evaluation)}).to_dict()))
    assert content["rows"] == [{"name": "one", "metrics": dict(scaled(evaluation))}]


def test_cirr_has_short_names_for_its_subsets(tiny_cirr: Path) -> None:
    head = ablation_table({"one": random_evaluation(CIRR(tiny_cirr, "val"))}).head
    assert head[:8] == ("", "R@1", "R@5", "R@10", "R@50", "Rs@1", "Rs@2", "Rs@3")


def test_another_protocol_is_set_apart_and_warned_of(tiny_fashioniq: Path) -> None:
    plain = FashionIQ(tiny_fashioniq, "val")
    rows = {
        "plain": random_evaluation(plain),
        "again": random_evaluation(plain, seed=1),
        "easier": random_evaluation(FashionIQ(tiny_fashioniq, "val", gallery="val")),
        "fewer": random_evaluation(drop_images(plain, ["Dval00"])),
    }
    with pytest.warns(ProtocolWarning) as caught:
        table = ablation_table(rows)
    assert [str(warning.message) for warning in caught] == [
        "'easier' and 'plain' do not compare: gallery val / original",
        "'fewer' and 'plain' do not compare: missing 1 of 24 queries, 1 of 36 gallery images "
        "/ not said",
    ]
    assert {warning.filename for warning in caught} == {__file__}
    assert [row[0] for row in table.rows] == ["plain", "again"]
    lines = str(table).splitlines()
    apart = lines.index("Of another protocol, so that they do not compare:")
    assert [line.split()[1] for line in lines[apart + 4 : apart + 6]] == ["easier", "fewer"]
    assert "gallery val / original" in lines[apart + 4]
    assert r"differs in gallery val / original}" in table.latex()
    content = table.to_dict()["rows"]
    assert [row.get("differs_in") for row in content[:3]] == [
        None,
        None,
        ["gallery val / original"],
    ]
    assert content[2]["protocol"]["gallery"] == "val"


def test_one_protocol_gives_no_warning(evaluation: fc.Evaluation) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ablation_table({"one": evaluation, "other": scaled(evaluation)})


def test_other_metrics_stand_in_another_table(evaluation: fc.Evaluation) -> None:
    other = replace(evaluation, metrics={"mean": 1.0})
    with pytest.raises(ValueError, match="'other' mean: give each a table of its own"):
        ablation_table({"one": evaluation, "other": other})
    with pytest.raises(ValueError, match="at least one; got none"):
        ablation_table({})


def test_names_cannot_break_a_table(evaluation: fc.Evaluation) -> None:
    table = ablation_table({r"a|b & 50% of_it \ $x^2$ {~}": evaluation})
    assert r"a\|b & 50%" in str(table)
    assert (
        r"a|b \& 50\% of\_it \textbackslash{} \$x\textasciicircum{}2\$ \{\textasciitilde{}\}"
        in (table.latex())
    )


# What ends a line somewhere, or belongs to a row break of LaTeX where it begins a row.
ODD_NAMES = st.text("ab[]*|\\& \n\r\t\v\f\x00\x1c\x85\u2028\u2029#%$~^_{}", max_size=8)


def cells_as_github_counts(line: str) -> int:
    return len(re.findall("[|]", re.sub(r"\\.", "", line))) - 1


@given(names=st.lists(ODD_NAMES, min_size=2, max_size=2, unique=True), reason=ODD_NAMES)
def test_whatever_a_name_holds_each_row_is_one_line(names: list[str], reason: str) -> None:
    rows = [(name, "1", "[2, 3]") for name in names]
    table = Table(("", *names), rows, ("note",), {}, [(rows[0], reason)])
    lines = str(table).splitlines()
    assert len(lines) == 12
    rows_of_table = [line for line in lines if line.startswith("|")]
    assert len(rows_of_table) == 7
    assert [cells_as_github_counts(line) for line in rows_of_table] == [3] * 4 + [4] * 3
    latex = table.latex().splitlines()
    assert len(latex) == 13
    for before, line in pairwise(latex):
        assert line.strip()
        if before.endswith((r"\\", "rule")):
            assert line.lstrip()[0] not in "[*"


@pytest.mark.parametrize(
    ("name", "markdown", "latex"),
    [
        ("[ours] a", "[ours] a", "{}[ours] a"),
        ("*ours", "*ours", "{}*ours"),
        ("a\n\nb", "a b", "a b"),
        ("a\\|b", r"a\\\|b", r"a\textbackslash{}|b"),
        ("a\r\nb\tc", "a b c", "a b c"),
    ],
)
def test_a_name_that_could_tear_its_row(name: str, markdown: str, latex: str) -> None:
    table = Table(("", "x"), [(name, "1")], (), {})
    assert str(table).splitlines()[2].startswith(f"| {markdown}")
    assert table.latex().splitlines()[4].startswith(latex)


def test_latex_is_one_tabular_with_as_many_cells_a_row(evaluation: fc.Evaluation) -> None:
    lines = ablation_table({"one": evaluation, "other": scaled(evaluation)}).latex().splitlines()
    assert lines[1] == r"\begin{tabular}{lrrrrr}"
    assert lines[-1] == r"\end{tabular}"
    rows = [line for line in lines if line.endswith(r"\\")]
    assert [row.count(" & ") for row in rows] == [5, 5, 5]


def test_intervals_stand_beside_their_values(evaluation: fc.Evaluation) -> None:
    table = interval_table(evaluation, resamples=500, seed=3)
    intervals = bootstrap(evaluation, resamples=500, seed=3)
    for row, name in zip(cells_of(table)[2:], evaluation, strict=True):
        low, high = intervals[name]
        assert row[1:] == [f"{evaluation[name]:.2f}", f"[{low:.2f}, {high:.2f}]"]
        content = table.to_dict()["metrics"][name]
        assert content == {"value": evaluation[name], "low": low, "high": high}
    assert "dress: 8 queries in 12 images" in str(table)
    assert "500 resamples, seed 3" in str(table)


def test_a_note_of_two_lines_stays_a_comment() -> None:
    table = Table(head=("", "a"), rows=[("x", "1")], notes=("one\n\\two",), content={})
    assert table.latex().splitlines()[:3] == ["% one", "% \\two", r"\begin{tabular}{lr}"]

"""Evaluations and comparisons in a notebook."""

from html.parser import HTMLParser

from evaluations import random_evaluation

import fusecomp as fc
from fusecomp.evaluation import compare

NAME = "<b>a & b</b>"


def data(name: str = "shop") -> fc.datasets.Triplets:
    rows = [fc.Triplet(str(n), f"i{n}", ("<i>blue</i>",), f"i{(n + 1) % 9}") for n in range(9)]
    return fc.datasets.Triplets(rows, name=name)


class Cells(HTMLParser):
    """The texts between tags, and the tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_an_evaluation_is_a_table_of_what_it_prints() -> None:
    evaluation = random_evaluation(data(NAME))
    cells = Cells(evaluation._repr_html_())
    for _, *values in evaluation.cells()[1:]:
        assert set(values) <= set(cells.texts)
    assert any(NAME in text for text in cells.texts)
    assert cells.tags == {"table", "tr", "th", "td", "p", "br"}


def test_a_comparison_is_a_table_with_its_notes() -> None:
    runs = [random_evaluation(data(), seed) for seed in (0, 1)]
    comparison = compare(*runs, names=("plain", NAME))
    cells = Cells(comparison._repr_html_())
    assert set(comparison.differences) <= set(cells.texts)
    assert f"B  {NAME}" in cells.texts
    for name, difference in comparison.differences.items():
        row = cells.texts.index(name)
        assert cells.texts[row + 3] == f"{difference.difference:+.2f}"
    # Whatever is printed is there too, but for the layout of the numbers.
    for line in str(comparison).splitlines():
        if not line.startswith(tuple(comparison.differences)) and "95 %" not in line:
            assert not line or line in cells.texts
    assert "i" not in cells.tags

"""Reports of a fusion with a similarity of its own show its scores, and call them so."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import Toy, encoder

import fusecomp as fc
from fusecomp.report import retrieval_page, retrieval_sheet, write_report


class Distance:
    """The text moves the reference; images near it are best."""

    def __call__(self, image: Tensor, text: Tensor) -> Tensor:
        return image + text

    def similarity(self, query: Tensor, target: Tensor) -> Tensor:
        return 100 - torch.cdist(query, target)


@pytest.fixture
def late(data: Toy) -> fc.Evaluation:
    return fc.evaluate(fc.ComposedEncoder(encoder(), Distance()), data)


def test_page_and_sheet_show_the_scores(
    late: fc.Evaluation, data: Toy, tmp_path: Path, drawn: list[str]
) -> None:
    ranking = late.ranking[""]
    best = float(ranking.scores[0, 0])
    assert 90 < best < 100
    late.save(tmp_path / "evaluation.npz")
    loaded = fc.Evaluation.load(tmp_path)
    retrieval_page(loaded, data, tmp_path / "page.html")
    assert f"1 · {best:.3f}" in (tmp_path / "page.html").read_text()
    retrieval_sheet(loaded.ranking[""], data, tmp_path / "sheet.png", [0])
    assert f"1.  {best:.3f}" in drawn


def test_the_report_calls_no_score_a_cosine(late: fc.Evaluation, data: Toy, tmp_path: Path) -> None:
    write_report({"Distance": late}, data, tmp_path, title="Distances")
    text = (tmp_path / "report.md").read_text()
    assert "A number is a score (the cosine, or a similarity of the fusion's own)" in text

"""Sheets and pages mark all right answers of a query."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from toy import Toy

import fusecomp as fc
from fusecomp.evaluation import TaskRanking
from fusecomp.report import contact_sheet, retrieval_page, retrieval_sheet
from fusecomp.report._query_results import query_results
from fusecomp.types import Task

GREEN = (10, 143, 60)


@pytest.fixture
def several(evaluation: fc.Evaluation) -> fc.Evaluation:
    """The first query alone, whose first, third and last images are right, the third the target."""
    found = evaluation.ranking[""].select([0])
    top = found.top_ids()[0]
    answers = (top[2], top[0], top[-1])
    query = replace(found.task.queries[0], target_id=answers[0], other_target_ids=answers[1:])
    task = replace(found.task, queries=[query], relevant=[answers], exclude=None)
    ranks = torch.tensor([[3, 1, len(top)]])
    found = replace(found, task=task, ranks=torch.tensor([3]), relevant_ranks=ranks)
    return fc.Evaluation({"recall@1": 0.0}, fc.Ranking([found], {"dataset": "toy"}))


def green_frames(path: Path) -> int:
    """The number of frames on one row of images, by their left edges."""
    with Image.open(path) as file:
        pixels = file.convert("RGB")
    middle = [pixels.getpixel((x, pixels.height // 2)) == GREEN for x in range(pixels.width)]
    edges = sum(now and not before for before, now in zip([False, *middle], middle, strict=False))
    return edges // 2


@pytest.mark.parametrize(("top", "frames"), [(1, 1), (2, 1), (3, 2)])
def test_a_sheet_frames_the_right_answers_it_shows(
    data: Toy, several: fc.Evaluation, tmp_path: Path, drawn: list[str], top: int, frames: int
) -> None:
    retrieval_sheet(several.ranking[""], data, tmp_path / "sheet.png", top=top)
    # A target that is not among the results is behind them.
    assert green_frames(tmp_path / "sheet.png") == frames + (top < 3)
    rank = "" if top == 3 else "target at rank 3, "
    assert f"{rank}{frames} of 3 right answers shown" in drawn


def test_a_contact_sheet_shows_further_right_answers(
    data: Toy, several: fc.Evaluation, tmp_path: Path, drawn: list[str]
) -> None:
    contact_sheet(several.ranking[""].task.queries, data, tmp_path / "sheet.png")
    assert green_frames(tmp_path / "sheet.png") == 3
    assert (drawn.count("target"), drawn.count("right too")) == (1, 2)


def test_a_page_frames_them_and_names_the_target(
    data: Toy, several: fc.Evaluation, tmp_path: Path
) -> None:
    retrieval_page(several, data, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    captions = re.findall(
        r'<figure class="target[^>]*>.*?<figcaption>(.*?)</figcaption>', text, re.S
    )
    assert [caption.split(" · ")[0] for caption in captions][:2] == ["1", "3"]
    assert [caption.endswith("· target") for caption in captions][:2] == [False, True]
    assert "of 3 right answers shown" in text


def test_with_one_right_answer_nothing_is_said(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path
) -> None:
    retrieval_page(evaluation, data, tmp_path / "page.html")
    assert "right answers shown" not in (tmp_path / "page.html").read_text()


def test_the_places_that_nothing_fills_are_not_shown() -> None:
    task = Task("", [fc.Triplet("q", "a", ("is red",), "b")], ("a", "b", "c"), exclude=[("a",)])
    indices, scores = torch.tensor([[1, 2, -1]]), torch.tensor([[0.5, 0.25, -torch.inf]])
    found = query_results(TaskRanking(task, indices, scores, torch.tensor([1])), 0, 3, None)
    assert [result.image_id for result in found.results] == ["b", "c"]

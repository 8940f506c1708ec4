import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toy import Toy, encoder

import fusecomp as fc
from fusecomp.report import contact_sheet, retrieval_sheet

GREEN = (10, 143, 60)


def colours(path: Path) -> set[Any]:
    with Image.open(path) as file:
        counts = file.convert("RGB").getcolors(1_000_000)
    assert counts is not None
    return {colour for _, colour in counts}


def test_a_contact_sheet_shows_references_and_targets(data: Toy, tmp_path: Path) -> None:
    triplets = data.triplets()[:4]
    contact_sheet(triplets, data, tmp_path / "sheet.png")
    shown = {(10 * int(i or 0), 0, 200) for t in triplets for i in (t.reference_id, t.target_id)}
    assert shown | {GREEN} <= colours(tmp_path / "sheet.png")


def test_a_target_that_is_no_result_is_behind_the_results(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path, drawn: list[str]
) -> None:
    ranking = evaluation.ranking[""]
    assert ranking.ranks is not None
    for position in range(len(ranking.ranks)):
        retrieval_sheet(ranking, data, tmp_path / "sheet.png", [position], top=5)
        found = int(ranking.ranks[position]) <= 5
        assert ("target" in drawn) != found
        target = int(ranking.task.queries[position].target_id or 0)
        assert {GREEN, (10 * target, 0, 200)} <= colours(tmp_path / "sheet.png")
        drawn.clear()
    assert 0 < sum(ranking.ranks <= 5) < len(ranking.ranks)


def test_each_sheet_has_a_heading(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path, drawn: list[str]
) -> None:
    contact_sheet(data.triplets()[:4], data, tmp_path / "sheet.png")
    assert drawn[0].replace("\n", " ") == "4 triplets: reference, text, and target (green)"
    drawn.clear()
    retrieval_sheet(evaluation.ranking[""], data, tmp_path / "sheet.png", top=3)
    assert drawn[0].replace("\n", " ") == (
        "all: the best 3 of 24 images for each query, with rank and score; green: the target"
    )


@pytest.mark.parametrize(
    ("target", "rank", "expected"),
    [
        (1, 2, []),  # the second of two results that are drawn
        (2, 3, ["target at rank 3", "target"]),
        (2, 12345, ["target at rank 12,345", "target"]),
        (2, -1, ["target left out of the ranking", "target"]),
        (2, None, ["target"]),
        (None, -1, []),
    ],
)
def test_a_target_that_is_not_drawn_has_its_rank_below_the_text(
    data: Toy,
    evaluation: fc.Evaluation,
    tmp_path: Path,
    drawn: list[str],
    target: int | None,
    rank: int | None,
    expected: list[str],
) -> None:
    ranking = evaluation.ranking[""]
    target_id = None if target is None else ranking.top_ids()[0][target]
    query = replace(ranking.task.queries[0], target_id=target_id)
    ranks = None if rank is None else torch.tensor([rank])
    ranking = replace(ranking, task=replace(ranking.task, queries=[query]), ranks=ranks)
    retrieval_sheet(ranking, data, tmp_path / "sheet.png", top=2)
    assert [text for text in drawn[1:] if "target" in text] == expected


@pytest.mark.parametrize(("words", "lines"), [(1, 1), (7, 7), (8, 7), (50, 7)])
def test_a_text_that_is_too_long_ends_in_dots(
    data: Toy, tmp_path: Path, drawn: list[str], words: int, lines: int
) -> None:
    texts = tuple(f"{'x' * 20} {number}" for number in range(words))
    contact_sheet([replace(data.triplets()[0], texts=texts)], data, tmp_path / "sheet.png")
    shown = next(text for text in drawn if "xx" in text).split("\n")
    assert len(shown) == lines
    assert (shown[-1] == "...") == (words > lines)
    assert shown[0] == texts[0]


@pytest.mark.parametrize(("count", "rows"), [(3, 3), (12, 10)])
def test_a_retrieval_sheet_shows_the_first_ten_queries_or_all(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path, count: int, rows: int
) -> None:
    ranking = evaluation.ranking[""]
    ranking = replace(ranking, task=replace(ranking.task, queries=ranking.task.queries[:count]))
    retrieval_sheet(ranking, data, tmp_path / "first.png", top=1)
    retrieval_sheet(ranking, data, tmp_path / "named.png", range(rows), top=1)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "named.png").read_bytes()


def test_queries_outside_the_task_are_named(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path
) -> None:
    ranking = evaluation.ranking[""]
    count = len(ranking.task.queries)
    message = f"queries must be at most {count - 1}, got {count}"
    with pytest.raises(ValueError, match=message):
        retrieval_sheet(ranking, data, tmp_path / "sheet.png", [0, count, count + 3])
    with pytest.raises(ValueError, match="queries must be a whole number of at least 0, got -1"):
        retrieval_sheet(ranking, data, tmp_path / "sheet.png", [0, -1])
    assert not (tmp_path / "sheet.png").exists()


def test_sheets_work_without_targets(data: Toy, tmp_path: Path) -> None:
    hidden = [replace(t, target_id=None) for t in data.triplets()]
    contact_sheet(hidden[:3], data, tmp_path / "sheet.png")
    assert GREEN not in colours(tmp_path / "sheet.png")


def test_an_image_that_cannot_be_read_is_a_grey_box_with_its_id(
    data: Toy, tmp_path: Path, drawn: list[str]
) -> None:
    data.path("1").write_bytes(b"torn")
    contact_sheet(data.triplets()[:3], data, tmp_path / "sheet.png")
    assert (201, 201, 201) in colours(tmp_path / "sheet.png")
    assert "no image\n1" in drawn


@pytest.mark.parametrize("top", [0, -1])
def test_no_results_to_draw(data: Toy, evaluation: fc.Evaluation, tmp_path: Path, top: int) -> None:
    with pytest.raises(ValueError, match=f"top must be a whole number of at least 1, got {top}"):
        retrieval_sheet(evaluation.ranking[""], data, tmp_path / "sheet.png", top=top)
    assert not (tmp_path / "sheet.png").exists()


def test_nothing_to_draw(data: Toy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        contact_sheet([], data, tmp_path / "sheet.png")


def test_without_pillow_the_extra_is_named(
    data: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=re.escape("fusecomp[images]")):
        contact_sheet(data.triplets(), data, tmp_path / "sheet.png")


def test_padding_of_short_rankings_is_not_drawn(data: Toy, tmp_path: Path) -> None:
    model = fc.ComposedEncoder(encoder(), fc.Sum())
    ranking = fc.rank(model, data, k=50)[""]
    assert torch.any(ranking.indices == -1)
    retrieval_sheet(ranking, data, tmp_path / "sheet.png", [0], top=50)
    with Image.open(tmp_path / "sheet.png") as file:
        assert file.width == 1.5 * (8 + 120 + 216 + 120 * len(data.image_ids))


def test_gates_stand_below_the_texts(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path, drawn: list[str]
) -> None:
    ranking = evaluation.ranking[""]
    gates = torch.linspace(0, 1, len(ranking.task.queries))
    retrieval_sheet(ranking, data, tmp_path / "sheet.png", [0, 9], top=24, gates=gates)
    assert [text for text in drawn if "gate" in text] == ["gate 0.00", "gate 1.00"]
    drawn.clear()
    assert ranking.ranks is not None
    last = int(ranking.ranks.argmax())
    retrieval_sheet(ranking, data, tmp_path / "sheet.png", [last], top=1, gates=gates.tolist())
    rank, gate = int(ranking.ranks[last]), float(gates[last])
    assert f"target at rank {rank}, gate {gate:.2f}" in drawn
    with pytest.raises(ValueError, match="3 gates for the 10 queries"):
        retrieval_sheet(ranking, data, tmp_path / "sheet.png", gates=[0.1, 0.2, 0.3])

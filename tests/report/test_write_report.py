"""The report of an experiment: numbers, a page, sheets."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from raising import own_error, shown_id
from toy import Toy

import fusecomp as fc
from fusecomp._core.checks import shown
from fusecomp.report import ablation_table, write_report


def test_a_report_holds_every_value_and_links_to_its_images(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path
) -> None:
    rows = {"one": evaluation, "other": replace(evaluation, metrics={n: 1.0 for n in evaluation})}
    out = tmp_path / "new" / "report"
    settings = {"seed": 3, "loss": "InfoNCE"}
    write_report(rows, data, out, title="Toys", note="Not comparable.", settings=settings)
    assert json.loads((out / "metrics.json").read_text()) == {
        "protocol": dict(evaluation.protocol),
        "seed": 3,
        "loss": "InfoNCE",
        "metrics": {"one": dict(evaluation), "other": dict(rows["other"])},
    }
    page = (out / "report.md").read_text()
    assert page.startswith("# Toys\n\nseed 3; loss InfoNCE\n\nNot comparable.\n\n")
    assert str(ablation_table(rows)) in page
    links = re.findall(r"\]\((.*?)\)", page)
    assert links == ["triplets.png", "results.png"]
    assert {path.name for path in out.iterdir()} == {
        *links,
        "metrics.json",
        "report.md",
        "evaluation.npz",
    }
    assert dict(fc.Evaluation.load(out)) == dict(evaluation)


def test_a_report_has_a_sheet_for_each_task(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path
) -> None:
    (found,) = evaluation.ranking.tasks
    tasks = [replace(found, task=replace(found.task, name=name)) for name in ("dress", "shirt")]
    two = replace(evaluation, ranking=replace(evaluation.ranking, tasks=tasks))
    write_report({"one": two}, data, tmp_path / "out", title="Two")
    page = (tmp_path / "out" / "report.md").read_text()
    assert "[dress](results-dress.png), [shirt](results-shirt.png)" in page
    assert (tmp_path / "out" / "results-shirt.png").stat().st_size > 0


# Each would lead out of the folder, or share its file with another one.
TASKS = [
    "/../../../victim", "../victim", "/victim", "..", ".", "a/b", "a\\b", "a-b", "A-B", "a-b-2",
    "C:\\x", "a\0b", "a\ud800b", "größe", "gr\u00f6\u0308e", "[x](y)", "a\nb", "x" * 300, "x" * 301,
]  # fmt: skip


def test_no_name_of_a_task_leaves_the_folder_or_shares_a_file(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_nothing(_: object, __: object, path: Path, *___: Any, **____: Any) -> None:
        path.touch()

    # The sheets themselves would take some seconds, and are tested elsewhere.
    monkeypatch.setattr("fusecomp.report._write_report.retrieval_sheet", write_nothing)
    (found,) = evaluation.ranking.tasks
    tasks = [replace(found, task=replace(found.task, name=name)) for name in TASKS]
    many = replace(evaluation, ranking=replace(evaluation.ranking, tasks=tasks))
    out = tmp_path / "runs" / "out"
    before = set(tmp_path.rglob("*"))
    write_report({"one": many}, data, out, title="Many")
    assert {path.parent for path in set(tmp_path.rglob("*")) - before} == {
        tmp_path,
        out.parent,
        out,
    }
    sheets = [path.name for path in out.glob("results-*.png")]
    assert len(sheets) == len({name.lower() for name in sheets}) == len(TASKS)
    links = re.findall(r"\]\((results-[^)]*)\)", (out / "report.md").read_text())
    assert sorted(links) == sorted(sheets)


TAKEN: list[tuple[Any, Any]] = [
    (np.float32(0.5), 0.5),
    (np.int64(3), 3),
    (np.bool_(True), True),
    (np.array([1, 2]), [1, 2]),
    ({"lr": np.float64(0.5), "k": (np.uint8(1), 5)}, {"lr": 0.5, "k": [1, 5]}),
    (None, None),
]


def test_settings_may_be_of_numpy(data: Toy, evaluation: fc.Evaluation, tmp_path: Path) -> None:
    settings = {f"own {place}": given for place, (given, _) in enumerate(TAKEN)}
    write_report({"one": evaluation}, data, tmp_path, title="Own", settings=settings)
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert [numbers[name] for name in settings] == [kept for _, kept in TAKEN]
    assert "own 0 0.5; own 1 3; " in (tmp_path / "report.md").read_text()


class Odd:
    pass


@pytest.mark.parametrize(
    "value",
    [
        Path("x"), float("nan"), np.float32("inf"), [1, float("inf")], fc.InfoNCE(), Odd, Odd(),
        fc.StageConfig(epochs=1, batch_size=2, lr=0.1), 1j, np.complex64(1), b"x", {1}, {"a": {1}},
        torch.tensor(1.0), {(1, 2): 3}, {1: "a", "1": "b"}, 10**400, iter("a"),
    ],
    ids=shown_id,
)  # fmt: skip
def test_a_setting_that_json_has_not_is_named(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path, value: Any
) -> None:
    out, rows, settings = tmp_path / "out", {"one": evaluation}, {"seed": 0, "own": value}
    message = own_error(write_report, rows, data, out, title="Odd", settings=settings)
    assert message.startswith(f"settings['own'] must be what JSON has, got {shown(value)}")
    assert not out.exists()


@pytest.mark.parametrize("name", ["protocol", "metrics", 1, None, ("a",)])
def test_a_setting_does_not_stand_in_the_place_of_the_numbers(
    data: Toy, evaluation: fc.Evaluation, tmp_path: Path, name: Any
) -> None:
    out, rows = tmp_path / "out", {"one": evaluation}
    message = own_error(write_report, rows, data, out, title="Own", settings={name: "mine"})
    assert message.startswith("settings must be named by strings, and not 'protocol' or 'metrics'")
    assert message.endswith(f"got {name!r}")
    assert not out.exists()


def test_nothing_to_report(data: Toy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one; got none"):
        write_report({}, data, tmp_path / "out", title="Nothing")
    assert not (tmp_path / "out").exists()

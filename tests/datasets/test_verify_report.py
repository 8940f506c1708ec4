"""The call of verify, and what its report shows."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from fusecomp.datasets import CIRR, FashionIQ, Finding, VerifyReport
from fusecomp.datasets._verify_report import Count


def test_a_folder_that_is_no_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no FashionIQ in .*image_splits is missing; give"):
        FashionIQ.verify(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no CIRR in .* fetch the annotations from https"):
        CIRR.verify(tmp_path)


def report_of(*findings: Finding, counts: Iterable[Count] = ()) -> VerifyReport:
    return VerifyReport("mine", Path("here"), tuple(counts), findings, 1234, False, 2.0)


def test_the_report_shows_ten_names_of_a_fault_and_three_of_a_note() -> None:
    names = tuple(f"image {number:02d}" for number in range(12))
    text = str(
        report_of(
            Finding("unknown", "12 files are strange", names, fault=False),
            Finding("empty", "12 files are empty", names, tuple(f"why {n}" for n in names)),
        )
    )
    fault, note = text.split("note   unknown: 12 files are strange")
    assert "FAULT  empty: 12 files are empty" in fault
    assert "image 09 (why image 09)" in fault
    assert "image 10" not in fault
    assert "and 2 more" in fault
    assert "image 02\n" in note
    assert "image 03" not in note
    assert "and 9 more" in note
    assert text.startswith("mine in here\n1,234 images opened in 2.0 s; headers and ends read")
    assert text.endswith("\n1 kind of fault")


def test_the_report_marks_counts_that_differ() -> None:
    counts = [Count("queries", 5, 5), Count("images", 12_345, 12_346), Count("files", 7)]
    lines = str(report_of(counts=counts)).splitlines()
    assert [line.split() for line in lines[3:7]] == [
        ["found", "published"],
        ["queries", "5", "5"],
        ["images", "12,345", "12,346", "<-", "differs"],
        ["files", "7"],
    ]


def test_a_report_is_fine_with_notes_and_not_with_faults() -> None:
    note, fault = Finding("a", "b", fault=False), Finding("c", "d")
    assert report_of().ok
    assert report_of(note).ok
    assert not report_of(note, fault).ok


def test_the_dictionary_has_every_name_and_goes_through_json() -> None:
    names = tuple(f"image {number}" for number in range(40))
    report = report_of(Finding("empty", "all", names), counts=[Count("queries", 5, 6)])
    content = json.loads(json.dumps(report.to_dict()))
    assert content["findings"][0]["names"] == list(names)
    assert content["counts"] == [{"name": "queries", "found": 5, "published": 6}]
    assert (content["ok"], content["dataset"], content["root"]) == (False, "mine", "here")

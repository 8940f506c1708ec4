"""How a report of verify counts."""

from pathlib import Path

from fusecomp.datasets import CIRR, Finding, VerifyReport


def test_two_findings_of_one_kind_are_one_kind_of_fault() -> None:
    findings = [Finding("annotation", "a"), Finding("annotation", "b"), Finding("empty", "c")]
    note = Finding("overlap", "d", fault=False)
    report = VerifyReport("mine", Path("here"), (), (*findings, note), 3, False, 2.0)
    assert str(report).endswith("\n2 kinds of fault")


def test_missing_files_of_cirr_are_named_in_one_finding(tiny_cirr: Path) -> None:
    for path in (tiny_cirr / "cirr" / "captions").iterdir():
        path.unlink()
    (missing,) = (f for f in CIRR.verify(tiny_cirr).findings if f.kind == "annotation")
    assert len(missing.names) == 3


def test_bad_images_are_those_that_no_encoder_can_read() -> None:
    findings = [
        Finding("missing", "", ("a", "b")),
        Finding("unreadable", "", ("c",)),
        Finding("annotation", "", ("cap.json",)),
        Finding("duplicate", "", ("d = e",), fault=False),
    ]
    report = VerifyReport("mine", Path("here"), (), findings, 3, False, 2.0)
    assert report.bad_images == ("a", "b", "c")

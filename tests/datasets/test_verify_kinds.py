"""How a report of verify counts."""

from pathlib import Path

from fusecomp.datasets import CIRR, Finding, VerifyReport


def test_two_findings_of_one_kind_are_one_kind_of_fault() -> None:
    findings = [Finding("annotation", "a"), Finding("annotation", "b"), Finding("empty", "c")]
    note = Finding("overlap", "d", fault=False)
    report = VerifyReport("mine", Path("here"), (), (*findings, note), 3, False, 2.0)
    assert str(report).endswith("\n2 kinds of fault")


def test_each_missing_file_of_cirr_is_named_under_one_kind(tiny_cirr: Path) -> None:
    for path in (tiny_cirr / "cirr" / "captions").iterdir():
        path.unlink()
    findings = CIRR.verify(tiny_cirr).findings
    assert sum(finding.kind == "annotation" for finding in findings) == 3
    assert str(CIRR.verify(tiny_cirr)).endswith(
        f"{len({f.kind for f in findings if f.fault})} kinds of fault"
    )


def test_bad_images_are_those_that_no_encoder_can_read() -> None:
    findings = [
        Finding("missing", "", ("a", "b")),
        Finding("unreadable", "", ("c",)),
        Finding("annotation", "", ("cap.json",)),
        Finding("duplicate", "", ("d = e",), fault=False),
    ]
    report = VerifyReport("mine", Path("here"), (), findings, 3, False, 2.0)
    assert report.bad_images == ("a", "b", "c")

"""Blocks marked ``py``, which use what only the reader has, run on tiny stand-ins for that."""

import re
from pathlib import Path

import pytest
from page_settings import ROOT, SETTINGS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, mark: str) -> list[str]:
    return re.findall(rf"^```{mark}\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "py")], ids=lambda p: p.name)
def test_the_code_runs_on_what_the_page_says_you_have(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    assert page.stem in SETTINGS, "tests/helpers/page_settings.py must make what the page assumes"
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    exec(compile("\n".join(blocks(page, "python")), page.name, "exec"), names)
    names |= SETTINGS[page.stem](request, monkeypatch)
    for number, block in enumerate(blocks(page, "py"), 1):
        exec(compile(block, f"{page.name}, block {number} marked py", "exec"), names)

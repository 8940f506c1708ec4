"""What the README and the docs show is run; what they link to exists."""

import re
import shlex
from pathlib import Path

import pytest

from fusecomp import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# The tutorial runs as a notebook.
RUN = [p for p in PAGES if "```python\n" in p.read_text() and p.name != "tutorial.md"]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_code_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)


def run(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    exec(compile("\n".join(blocks), page.name, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_commands_on_what_a_page_made_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command is about files of its page where the first of them is there."""
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^fusecomp (.*)$", page.read_text(), re.MULTILINE)
    commands = [shlex.split(line.partition(" > ")[0]) for line in lines]
    if not commands:
        return
    run(page)
    for command in commands:
        if any(Path(word).exists() for word in command):
            assert cli.main(command) == 0, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_that_is_not_run_compiles(page: Path) -> None:
    for block in re.findall(r"^```py\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        compile(block, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "exactness.md").read_text())
    assert len(named) > 40
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


def test_the_readme_has_the_two_commands() -> None:
    commands = re.findall(r"^pip install .* && .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command, last in zip(commands, ("examples/fashioniq_repro.py", "-m pytest"), strict=True):
        assert "-c constraints.txt" in command
        assert command.endswith(last)

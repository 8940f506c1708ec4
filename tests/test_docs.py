"""What the README and the docs show is run; what they link to exists."""

import re
import shlex
import tomllib
from pathlib import Path

import api_page
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


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and the site give to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    kept = (re.sub(r"[^\w\s-]", "", title.lower()).strip() for title in titles)
    return {re.sub(r"\s", "-", title) for title in kept}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            path = page.parent / target if target else page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def test_the_site_has_every_page_once() -> None:
    named = re.findall(r"^ +- ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_the_readme_or_the_overview_leads_to_every_page(page: Path) -> None:
    if page.name != "index.md":
        assert f"(docs/{page.name})" in (ROOT / "README.md").read_text("utf-8")
        assert f"({page.name}" in (ROOT / "docs" / "index.md").read_text("utf-8")


def test_the_readme_names_every_extra() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    readme = (ROOT / "README.md").read_text("utf-8")
    for extra in extras:
        assert f"`{extra}`" in readme or f'".[{extra}]"' in readme, extra


def test_the_page_of_the_api_is_that_of_the_docstrings() -> None:
    assert api_page.as_page() == api_page.PAGE.read_text("utf-8"), (
        "run python tests/helpers/api_page.py"
    )


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_commands_name_files_and_options_that_are_there(page: Path) -> None:
    # Python's own option, and those of helpers that the examples share.
    sources = '"--help"' + "".join(p.read_text("utf-8") for p in (ROOT / "examples").rglob("*.py"))
    text = page.read_text("utf-8").replace("\\\n", " ")
    for path, options in re.findall(r"python ((?:examples|tests)/\S+\.py)([^`\n#&]*)", text):
        assert (ROOT / path).exists(), path
        for option in re.findall(r"--[\w-]+", options):
            assert f'"{option}"' in sources + (ROOT / path).read_text("utf-8"), option


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

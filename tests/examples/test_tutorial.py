"""The tutorial runs as a notebook, and the notebook is the page."""

from pathlib import Path

import pytest
from tutorial_notebook import NOTEBOOK, PAGE, as_notebook, as_text


def test_the_notebook_is_the_page() -> None:
    made = as_text(as_notebook(PAGE.read_text("utf-8")))
    assert made == NOTEBOOK.read_text("utf-8"), "run python tests/helpers/tutorial_notebook.py"


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    monkeypatch.setenv("PYTHONPATH", f"{NOTEBOOK.parents[1]}:{NOTEBOOK.parent}")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    html = [
        output["data"]["text/html"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    ]
    assert sum("Combiner" in table for table in html) == 1
    assert (tmp_path / "runs" / "tutorial" / "results.png").stat().st_size > 10_000

"""Make the notebook of the tutorial from its page: `python tests/helpers/tutorial_notebook.py`."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"
_SITE = "https://github.com/fusecomp/fusecomp/blob/main/docs/"


def as_notebook(page: str) -> dict[str, Any]:
    """Return a notebook without outputs: cells of code and of the text between."""
    parts = re.split(r"^```python\n(.*?)^```\n", page, flags=re.DOTALL | re.MULTILINE)
    cells = []
    for number, part in enumerate(parts):
        cell: dict[str, Any] = {"id": f"cell-{number}", "metadata": {}}
        if number % 2:
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        else:
            # The images come from running it; links lead to the pages.
            part = re.sub(r"^!\[.*\n", "", part, flags=re.MULTILINE)
            part = re.sub(r"\]\(([\w-]+\.md)", rf"]({_SITE}\1", part)
            cell |= {"cell_type": "markdown"}
        cells.append(cell | {"source": part.strip("\n").splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def as_text(notebook: dict[str, Any]) -> str:
    """Return the file of a notebook."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(as_text(as_notebook(PAGE.read_text("utf-8"))), "utf-8")

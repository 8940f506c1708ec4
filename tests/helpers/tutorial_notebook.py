"""Make the notebook of the tutorial from its page: `python tests/helpers/tutorial_notebook.py`.

With --images, run the page too, and keep the images that it draws in docs/images.
"""

import contextlib
import json
import re
import sys
import tempfile
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


def draw_images(page: str) -> None:
    """Run the page, and keep small copies of its images in the documentation."""
    from PIL import Image

    sys.path.insert(0, str(ROOT / "examples"))
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        exec("\n".join(blocks), {})
        for path in Path("runs/tutorial").glob("*.png"):
            image = Image.open(path).convert("RGB")
            image.thumbnail((1200, 1200))
            small = image.quantize(256, dither=Image.Dither.NONE)
            small.save(ROOT / "docs" / "images" / f"tutorial-{path.name}", optimize=True)


if __name__ == "__main__":
    if "--images" in sys.argv:
        draw_images(PAGE.read_text("utf-8"))
    NOTEBOOK.write_text(as_text(as_notebook(PAGE.read_text("utf-8"))), "utf-8")

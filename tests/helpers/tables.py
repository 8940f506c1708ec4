"""A row of a table of triplets, and the files of the images that it may name."""

from pathlib import Path
from typing import Any

NAMES = ("a.jpg", "b.png", "c.webp", "d/e.JPEG", "d/f.gif", "g.jpg")


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no image")


def row(**fields: Any) -> dict[str, Any]:
    return {"reference": "a", "text": "is blue", "target": "b"} | fields

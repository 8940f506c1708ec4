"""Captions of FashionIQ, as files and as texts."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fusecomp.types import Triplet

CATEGORIES = ("dress", "shirt", "toptee")
ROW = {"candidate": "Dval00", "target": "Dval01", "captions": ["is red", "has dots"]}


def write(root: Path, content: Any, name: str = "captions/cap.dress.val.json") -> None:
    (root / name).write_text(json.dumps(content))


def texts_of(triplets: Iterable[Triplet]) -> list[tuple[str, ...]]:
    return [triplet.texts for triplet in triplets]

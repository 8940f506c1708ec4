"""What tests of reports share."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text
from PIL import Image
from toy import DIM, Toy, encoder

import fusecomp as fc


@pytest.fixture
def data(tmp_path: Path) -> Toy:
    """The toy with real images, each of its own colour."""
    toy = Toy(tmp_path)
    for image_id in toy.image_ids:
        Image.new("RGB", (20, 30), (10 * int(image_id), 0, 200)).save(toy.path(image_id))
    return toy


@pytest.fixture
def evaluation(data: Toy) -> fc.Evaluation:
    return fc.evaluate(fc.ComposedEncoder(encoder(), fc.Combiner(DIM)), data)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is drawn."""
    texts: list[str] = []
    draw = Text.draw

    def recorded(self: Text, *arguments: Any, **options: Any) -> Any:
        texts.append(self.get_text())
        return draw(self, *arguments, **options)

    monkeypatch.setattr(Text, "draw", recorded)
    return texts

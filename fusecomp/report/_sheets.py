"""Pictures for people: triplets side by side, and what queries found. Needs Pillow."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fusecomp.evaluation import TaskRanking
from fusecomp.files import open_atomic
from fusecomp.protocols import Dataset
from fusecomp.records import Triplet

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["contact_sheet", "retrieval_sheet"]

_SIDE = 112
_GAP = 8
_LINE = 15
_TEXT_WIDTH, _TEXT_LINES = 200, 7
_WHITE, _BLACK, _GREY, _GREEN = "#ffffff", "#1a1a1a", "#c9c9c9", "#0a8f3c"


class _Cell(NamedTuple):
    """A picture, or a text in its place, with a line below it."""

    below: str
    image_id: str | None = None
    text: str = ""
    framed: bool = False


def contact_sheet(triplets: Sequence[Triplet], dataset: Dataset, path: str | Path) -> None:
    """Draw triplets as a PNG: reference, text, target.

    A picture that cannot be read is drawn as a grey box with its id.

    Args:
        triplets: one row each.
        dataset: knows where the pictures lie.
        path: the PNG, written atomically.

    Raises:
        ImportError: if Pillow is missing.
        ValueError: if there are no triplets.
    """
    rows = []
    for triplet in triplets:
        row = [_Cell("reference", triplet.reference_id), _Cell("", text=_texts(triplet))]
        if triplet.target_id is not None:
            row.append(_Cell("target", triplet.target_id, framed=True))
        rows.append(row)
    _draw(rows, dataset, Path(path))


def retrieval_sheet(
    ranking: TaskRanking,
    dataset: Dataset,
    path: str | Path,
    queries: Sequence[int] | None = None,
    top: int = 10,
) -> None:
    """Draw what some queries found as a PNG: reference, text, the best results by rank.

    The target is framed, or its rank stands below the text where it is not among the results;
    each result shows its rank and cosine.

    Args:
        ranking: one task of a ``Ranking``.
        dataset: knows where the pictures lie.
        path: the PNG, written atomically.
        queries: positions in ``ranking.task.queries``, one row each; None takes the first ten.
        top: results a row.

    Raises:
        ImportError: if Pillow is missing.
        ValueError: if there are no queries, or positions outside the task's.
    """
    count = len(ranking.task.queries)
    if queries is None:
        queries = range(min(10, count))
    outside = [position for position in queries if not 0 <= position < count]
    if outside:
        raise ValueError(f"queries must lie in [0, {count}), got {outside}")
    _draw([_found(ranking, position, top) for position in queries], dataset, Path(path))


def _found(ranking: TaskRanking, position: int, top: int) -> list[_Cell]:
    """The row of one query."""
    query, results = ranking.task.queries[position], []
    indices, scores = ranking.indices[position, :top], ranking.scores[position, :top]
    pairs = zip(indices.tolist(), scores.tolist(), strict=True)
    for place, (index, score) in enumerate(pairs, start=1):
        if index >= 0:
            image_id = ranking.task.gallery[index]
            framed = image_id == query.target_id
            results.append(_Cell(f"{place}.  {score:.3f}", image_id, framed=framed))
    below = ""
    if ranking.ranks is not None and not any(result.framed for result in results):
        below = _target_rank(query, int(ranking.ranks[position]))
    return [_Cell("reference", query.reference_id), _Cell(below, text=_texts(query)), *results]


def _target_rank(query: Triplet, rank: int) -> str:
    if query.target_id is None:
        return ""
    return f"target at rank {rank:,}" if rank >= 1 else "target left out of the ranking"


def _texts(triplet: Triplet) -> str:
    return "\n".join(triplet.texts)


def _draw(rows: Sequence[Sequence[_Cell]], dataset: Dataset, path: Path) -> None:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ImportError('drawing needs Pillow: pip install "fusecomp[images]"') from error
    if not rows:
        raise ValueError("there is nothing to draw")
    font = ImageFont.load_default(size=12)
    height = _SIDE + _LINE + 2 * _GAP
    width = max(sum(_width(cell) for cell in row) for row in rows) + _GAP
    sheet = Image.new("RGB", (width, height * len(rows) + _GAP), _WHITE)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        left, upper = _GAP, number * height + _GAP
        for cell in row:
            if cell.image_id is None:
                pen.text((left, upper), _wrapped(cell.text), _BLACK, font)
            else:
                box = (left - 3, upper - 3, left + _SIDE + 2, upper + _SIDE + 2)
                if cell.framed:
                    pen.rectangle(box, outline=_GREEN, width=3)
                sheet.paste(_thumbnail(dataset.path(cell.image_id), cell.image_id), (left, upper))
            colour = _GREEN if cell.framed else _BLACK
            pen.text((left, upper + _SIDE + 3), cell.below, colour, font)
            left += _width(cell)
    with open_atomic(path) as file:
        sheet.save(file, "PNG")


def _wrapped(text: str) -> str:
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, 30)]
    if len(lines) > _TEXT_LINES:
        lines[_TEXT_LINES - 1 :] = ["..."]
    return "\n".join(lines)


def _width(cell: _Cell) -> int:
    return (_TEXT_WIDTH if cell.image_id is None else _SIDE) + _GAP


def _thumbnail(path: Path, image_id: str) -> "Image":
    from PIL import Image, ImageDraw

    box = Image.new("RGB", (_SIDE, _SIDE), _WHITE)
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        ImageDraw.Draw(box).rectangle((0, 0, _SIDE - 1, _SIDE - 1), fill=_GREY)
        ImageDraw.Draw(box).text((6, 48), f"no picture\n{image_id}"[:30], _BLACK)
        return box
    scale = _SIDE / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    picture = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    box.paste(picture, ((_SIDE - size[0]) // 2, (_SIDE - size[1]) // 2))
    return box

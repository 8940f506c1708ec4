"""Images for people: triplets side by side, and what queries found. Needs Pillow."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fusecomp._core.checks import as_path, ordered, shown, whole_number
from fusecomp._core.files import open_atomic
from fusecomp.evaluation import TaskRanking
from fusecomp.images import require_pillow
from fusecomp.report._found import Found, Gates, checked_gates, what_it_found
from fusecomp.report._given import require_dataset
from fusecomp.report._thumbnail import thumbnail
from fusecomp.types import Dataset, Triplet

__all__ = ["contact_sheet", "retrieval_sheet"]

_SIDE = 112
_GAP = 8
_LINE = 15
_TEXT_WIDTH, _TEXT_LINES = 200, 7
_WHITE, _BLACK, _GREEN = "#ffffff", "#1a1a1a", "#0a8f3c"


class _Cell(NamedTuple):
    """An image, or a text in its place, with a line below it."""

    below: str
    image_id: str | None = None
    text: str = ""
    framed: bool = False


def contact_sheet(triplets: Sequence[Triplet], dataset: Dataset, path: str | Path) -> None:
    """Draw triplets as a PNG: reference, text, target.

    An image that cannot be read is drawn as a grey box with its id.

    Args:
        triplets: one row each.
        dataset: knows where the images lie.
        path: the PNG, written atomically.

    Raises:
        ImportError: if Pillow is missing.
        TypeError: if these are no triplets or no dataset, as when they are swapped.
        ValueError: if there are no triplets, or they have no order.
    """
    require_dataset(dataset)
    path = as_path("path", path)
    rows = []
    for triplet in ordered("triplets", triplets, "Triplet"):
        if not isinstance(triplet, Triplet):
            raise TypeError(f"triplets must be a list of Triplet, got {shown(triplet)} in it")
        row = [_Cell("reference", triplet.reference_id), _Cell("", text=_texts(triplet))]
        if triplet.target_id is not None:
            row.append(_Cell("target", triplet.target_id, framed=True))
        rows.append(row)
    _draw(rows, dataset, path)


def retrieval_sheet(
    ranking: TaskRanking,
    dataset: Dataset,
    path: str | Path,
    queries: Sequence[int] | None = None,
    top: int = 10,
    gates: Gates | None = None,
) -> None:
    """Draw what some queries found as a PNG: reference, text, the best results by rank.

    The target is framed, or its rank stands below the text where it is not among the results;
    each result shows its rank and cosine.

    Args:
        ranking: one task of a ``Ranking``.
        dataset: knows where the images lie.
        path: the PNG, written atomically.
        queries: positions in ``ranking.task.queries``, one row each; None takes the first ten.
        top: results a row.
        gates: of a fusion that has one, such as ``Combiner.gate``: a number for each query of the
            task, which stands below the text.

    Raises:
        ImportError: if Pillow is missing.
        TypeError: if ranking or dataset is something else, as when they are swapped.
        ValueError: if there are no queries, positions that are none of the task's, top is no whole
            number of at least 1, or gates are not finite or more or fewer than queries.
    """
    if not isinstance(ranking, TaskRanking):
        raise TypeError(f"ranking must be one task of a Ranking, got {shown(ranking)}")
    require_dataset(dataset)
    path = as_path("path", path)
    top = whole_number("top", top, 1)
    count = len(ranking.task.queries)
    numbers = checked_gates(ranking.task, gates)
    if queries is None:
        queries = range(min(10, count))
    queries = [whole_number("queries", q, 0) for q in ordered("queries", queries, "positions")]
    outside = [position for position in queries if position >= count]
    if outside:
        raise ValueError(f"queries must lie in [0, {count}), got {outside}")
    rows = [_row(what_it_found(ranking, position, top, numbers)) for position in queries]
    _draw(rows, dataset, path)


def _row(found: Found) -> list[_Cell]:
    below = "" if found.shows_target else found.target
    if found.gate is not None:
        below = ", ".join(filter(None, (below, f"gate {found.gate:.2f}")))
    return [
        _Cell("reference", found.query.reference_id),
        _Cell(below, text=_texts(found.query)),
        *(
            _Cell(f"{place}.  {score:.3f}", image_id, framed=is_target)
            for place, score, image_id, is_target in found.results
        ),
    ]


def _texts(triplet: Triplet) -> str:
    return "\n".join(triplet.texts)


def _draw(rows: Sequence[Sequence[_Cell]], dataset: Dataset, path: Path) -> None:
    require_pillow()
    from PIL import Image, ImageDraw, ImageFont

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
                image = thumbnail(dataset.path(cell.image_id), cell.image_id, _SIDE)
                sheet.paste(image, (left, upper))
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

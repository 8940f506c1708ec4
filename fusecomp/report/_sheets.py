"""Sheets of images: triplets, and queries with their results."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import east_asian_width

from fusecomp._core.checks import as_path, ordered, require_kind, shown, whole_number
from fusecomp.evaluation import TaskRanking
from fusecomp.images import require_pillow
from fusecomp.report._figure import BLACK, GREEN, font_families, save_figure
from fusecomp.report._query_results import (
    Gates,
    QueryResults,
    checked_gates,
    query_results,
    require_dataset,
    small_image,
)
from fusecomp.types import Dataset, Triplet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Lengths are hundredths of an inch.
_SIDE, _GAP, _LINE = 112, 8, 16
_TEXT_WIDTH, _TEXT_LINES, _LINE_LENGTH = 208, 7, 30
_LETTER = _TEXT_WIDTH // _LINE_LENGTH + 1
_PIXELS = 168
_FONT_SIZE = 8
_BOX = "#c9c9c9"
_OTHERS = 4


class _Cell(NamedTuple):
    """An image, or a text in its place, with a line below it."""

    below: str
    image_id: str | None = None
    text: str = ""
    framed: bool = False

    @property
    def width(self) -> int:
        return (_TEXT_WIDTH if self.image_id is None else _SIDE) + _GAP


def contact_sheet(
    triplets: Sequence[Triplet],
    dataset: Dataset,
    path: str | Path,
    *,
    font: str | Path | None = None,
) -> None:
    """Draw triplets as a PNG: reference, text, target, and up to four further right answers.

    Args:
        triplets: one row each.
        dataset: knows where the images are; one that cannot be read is a grey box with its id.
        path: the PNG, written atomically.
        font: a font file or an installed family; see ``retrieval_sheet``.

    Raises:
        ImportError: if matplotlib or Pillow is missing.
        TypeError: if these are no triplets or no dataset, as when they are swapped.
        ValueError: if there are no triplets, or no such font.
    """
    require_dataset(dataset)
    path, families = as_path("path", path), font_families(font)
    rows = []
    for triplet in ordered("triplets", triplets, "Triplet"):
        if not isinstance(triplet, Triplet):
            raise TypeError(f"triplets must be a list of Triplet, got {shown(triplet)} in it")
        row = [_Cell("reference", triplet.reference_id), _Cell("", text=_wrapped(triplet.texts))]
        if triplet.target_id is not None:
            row.append(_Cell("target", triplet.target_id, framed=True))
        row += [_Cell("right too", i, framed=True) for i in triplet.other_target_ids[:_OTHERS]]
        rows.append(row)
    heading = f"{len(rows)} triplets: reference, text, and target (green)"
    save_figure(_sheet(rows, dataset, heading), path, families)


def retrieval_sheet(
    ranking: TaskRanking,
    dataset: Dataset,
    path: str | Path,
    queries: Sequence[int] | None = None,
    top: int = 10,
    gates: Gates | None = None,
    font: str | Path | None = None,
) -> None:
    """Draw queries as a PNG: reference, text, and the best results with rank and score.

    The target is framed, as are further right answers; where it is not among the results, it is
    behind them, and its rank below the text, with how many of several right answers are shown.

    Args:
        ranking: one task of a ``Ranking``.
        dataset: knows where the images are; one that cannot be read is a grey box with its id.
        path: the PNG, written atomically.
        queries: positions in ``ranking.task.queries``, one row each; None takes the first ten.
        top: results a row.
        gates: one number a query of the task, such as ``Combiner.gate``, printed below its text.
        font: a font file or an installed family that has the characters of the texts, such as
            ``"Noto Sans CJK SC"``; what it lacks is drawn in matplotlib's default. Characters that
            neither has become boxes, with a warning.

    Raises:
        ImportError: if matplotlib or Pillow is missing.
        TypeError: if ranking or dataset is something else, as when they are swapped.
        ValueError: if there are no queries, or positions, top, gates or font are not as above.
    """
    require_kind("ranking", ranking, TaskRanking, "one task of a Ranking")
    require_dataset(dataset)
    path, families = as_path("path", path), font_families(font)
    top = whole_number("top", top, 1)
    count = len(ranking.task.queries)
    numbers = checked_gates(ranking.task, gates)
    given = range(min(10, count)) if queries is None else ordered("queries", queries, "positions")
    positions = [whole_number("queries", query, 0, count - 1) for query in given]
    rows = [_row(query_results(ranking, position, top, numbers)) for position in positions]
    task = ranking.task
    heading = (
        f"{task.name or 'all'}: the best {min(top, len(task.gallery))} of {len(task.gallery):,} "
        "images for each query, with rank and score; green: the target"
    )
    save_figure(_sheet(rows, dataset, heading), path, families)


def _row(found: QueryResults) -> list[_Cell]:
    gate = "" if found.gate is None else f"gate {found.gate:.2f}"
    rank = "" if found.shows_target else found.target_text
    below = ", ".join(filter(None, (rank, found.answers_text, gate)))
    missed = None if found.shows_target else found.query.target_id
    return [
        _Cell("reference", found.query.reference_id),
        _Cell(below, text=_wrapped(found.query.texts)),
        *(
            _Cell(f"{result.rank}.  {result.score:.3f}", result.image_id, framed=result.is_right)
            for result in found.results
        ),
        *([] if missed is None else [_Cell("target", missed, framed=True)]),
    ]


def _wrapped(texts: Iterable[str]) -> str:
    # A wide character is counted twice, by a NUL behind it.
    wide = ("".join(c + "\0" * (east_asian_width(c) in "WF") for c in text) for text in texts)
    lines = [line for text in wide for line in textwrap.wrap(text, _LINE_LENGTH)]
    if len(lines) > _TEXT_LINES:
        lines[_TEXT_LINES - 1 :] = ["..."]
    return "\n".join(lines).replace("\0", "")


def _sheet(rows: Sequence[Sequence[_Cell]], dataset: Dataset, heading: str) -> "Figure":
    from matplotlib.figure import Figure

    require_pillow()
    if not rows:
        raise ValueError("there is nothing to draw")
    row_height = _SIDE + _LINE + 2 * _GAP
    width = max(sum(cell.width for cell in row) for row in rows) + _GAP
    lines = textwrap.wrap(heading, width // _LETTER)
    above = len(lines) * _LINE + _GAP
    height = above + row_height * len(rows) + _GAP
    figure = Figure((width / 100, height / 100))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    _write(axes, _GAP, _GAP, "\n".join(lines))
    for number, row in enumerate(rows):
        left, top = _GAP, above + number * row_height + _GAP
        for cell in row:
            if cell.image_id is None:
                _write(axes, left, top, cell.text)
            else:
                _draw_image(axes, left, top, cell.image_id, dataset)
            if cell.framed:
                _draw_box(axes, left - 2, top - 2, _SIDE + 4, GREEN, fill=False)
            _write(axes, left, top + _SIDE + 6, cell.below, GREEN if cell.framed else BLACK)
            left += cell.width
    return figure


def _draw_image(axes: "Axes", left: float, top: float, image_id: str, dataset: Dataset) -> None:
    """Draw an image in the middle of its square, or a grey box if it cannot be read."""
    image = small_image(dataset, image_id, _PIXELS)
    if image is None:
        _draw_box(axes, left, top, _SIDE, _BOX, fill=True)
        _write(axes, left + 6, top + 6, "\n".join(["no image", *textwrap.wrap(image_id, 14)[:5]]))
        return
    width, height = (_SIDE * length / max(image.size) for length in image.size)
    left, top = left + (_SIDE - width) / 2, top + (_SIDE - height) / 2
    axes.imshow(image, extent=(left, left + width, top + height, top), aspect="auto")


def _draw_box(
    axes: "Axes", left: float, top: float, side: float, colour: str, *, fill: bool
) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left, top), side, side, color=colour, fill=fill, linewidth=2.2))


def _write(axes: "Axes", left: float, top: float, text: str, colour: str = BLACK) -> None:
    axes.text(left, top, text, color=colour, fontsize=_FONT_SIZE, verticalalignment="top")

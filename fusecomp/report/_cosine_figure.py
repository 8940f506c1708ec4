from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusecomp._core.checks import as_path
from fusecomp.evaluation import CosineDistribution, Cosines
from fusecomp.report._figure import GREEN, GREY, decorate, font_families, save_figure
from fusecomp.report._named_rows import differences_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def cosine_figure(
    rows: Mapping[str, Cosines], path: str | Path, *, font: str | Path | None = None
) -> None:
    """Draw the distributions of ``cosines`` below each other as a PNG, with their gaps.

    Cosines share one axis. Where a row holds scores of a fusion's own similarity, each row has its
    own, and only gaps in standard deviations compare.

    Args:
        rows: cosines by name, such as of plain and tuned encoders.
        path: the PNG, written atomically.
        font: a font file or an installed family; see ``retrieval_sheet``.

    Raises:
        ImportError: if matplotlib is missing.
        TypeError: unless rows map names to cosines.
        ValueError: if there is no row, or no such font.

    Warns:
        ProtocolWarning: if protocols differ; it names the difference.
    """
    path = as_path("path", path)
    differences_of(rows, Cosines)
    families = font_families(font)
    from matplotlib.figure import Figure

    by_cosine = all(row.measure == "cosine" for row in rows.values())
    height = 1.35 if by_cosine else 1.75
    figure = Figure((7, 0.9 + height * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), sharex=by_cosine, squeeze=False)[:, 0]
    for axes, (name, row) in zip(panels, rows.items(), strict=True):
        _draw(axes, name, row)
        if not by_cosine:
            _label(axes, [row])
    if by_cosine:
        _label(panels[-1], list(rows.values()))
    first = next(iter(rows.values()))
    labels = panels[0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    save_figure(figure, path, families, first.protocol)


def _draw(axes: "Axes", name: str, row: Cosines) -> None:
    parts = ("other images", GREY, row.others), ("target", GREEN, row.target)
    for label, colour, cosines in parts:
        axes.stairs(*_density(cosines), fill=True, alpha=0.35, color=colour, label=label)
        axes.stairs(*_density(cosines), color=colour, linewidth=0.8)
        axes.axvline(cosines.mean, color=colour, linestyle="--", linewidth=1)
    axes.set_title(name, fontsize=10, loc="left")
    gap = f"gap {row.gap:.3f} ({row.separation:.2f} standard deviations)"
    axes.set_title(gap, fontsize=8, loc="right", color=GREY)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    decorate(axes)


def _label(axes: "Axes", rows: Sequence[Cosines]) -> None:
    """Show the part of the axis that rows of the same bins use."""
    _, edges = _density(rows[0].target)
    seen = np.flatnonzero(sum((row.target.counts + row.others.counts).numpy() for row in rows))
    margin = (edges[-1] - edges[0]) / 100
    axes.set_xlim(edges[seen[0]] - margin, edges[seen[-1] + 1] + margin)
    axes.set_xlabel(f"{rows[0].measure} with the query; dashed: means", fontsize=9)


def _density(cosines: CosineDistribution) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of the pairs in each bin, and the edges of the bins."""
    counts = cosines.counts.numpy()
    return counts / counts.sum(), np.linspace(*cosines.bounds, len(counts) + 1)

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusecomp._core.checks import as_path
from fusecomp.evaluation import CosineDistribution, Cosines
from fusecomp.report._figure import GREEN, GREY, decorate, font_families, new_figure, save_figure
from fusecomp.report._named_rows import differences_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def cosine_figure(
    rows: Mapping[str, Cosines], path: str | Path, *, font: str | Path | None = None
) -> None:
    """Draw the distributions of ``cosines`` below each other as a PNG, with their gaps.

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
    figure = new_figure(7, 0.9 + 1.35 * len(rows), layout="constrained")
    panels = figure.subplots(len(rows), sharex=True, squeeze=False)[:, 0]
    for axes, (name, row) in zip(panels, rows.items(), strict=True):
        _draw(axes, name, row)
    first = next(iter(rows.values()))
    _, edges = _density(first.target)
    counts = sum((row.target.counts + row.others.counts).numpy() for row in rows.values())
    seen = np.flatnonzero(counts)
    panels[-1].set_xlim(edges[seen[0]] - 0.02, edges[seen[-1] + 1] + 0.02)
    panels[-1].set_xlabel("cosine with the query; dashed: means", fontsize=9)
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


def _density(cosines: CosineDistribution) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of the pairs in each bin, and the edges of the bins."""
    counts = cosines.counts.numpy()
    return counts / counts.sum(), np.linspace(-1, 1, len(counts) + 1)

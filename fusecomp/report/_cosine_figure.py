from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusecomp._core.checks import as_path
from fusecomp.evaluation import CosineDistribution, Cosines
from fusecomp.report._plot import new_figure, plain, print_protocol, save_figure
from fusecomp.report._protocol_warning import differences_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["cosine_figure"]

_TARGET, _OTHERS = "#0a8f3c", "#6b7280"


def cosine_figure(rows: Mapping[str, Cosines], path: str | Path) -> None:
    """Draw the distributions of ``cosines`` below each other as a PNG, with their gaps.

    Args:
        rows: name -> cosines, such as of plain and tuned encoders under Sum and a Combiner.
        path: the PNG, written atomically.

    Raises:
        ImportError: if matplotlib is missing.
        TypeError: unless rows map names to cosines.
        ValueError: if there is no row.

    Warns:
        ProtocolWarning: if protocols differ; it names the difference.
    """
    path = as_path("path", path)
    differences_of(rows, Cosines, "there are no cosines to draw")
    first = next(iter(rows.values()))
    figure = new_figure(7, 0.7 + 1.35 * len(rows))
    panels = figure.subplots(len(rows), sharex=True, squeeze=False)[:, 0]
    for axes, (name, row) in zip(panels, rows.items(), strict=True):
        _draw(axes, name, row)
    edges = np.linspace(-1, 1, len(first.target.counts) + 1)
    seen = np.flatnonzero(
        sum((row.target.counts + row.others.counts).numpy() for row in rows.values())
    )
    panels[-1].set_xlim(edges[seen[0]] - 0.02, edges[seen[-1] + 1] + 0.02)
    panels[-1].set_xlabel("cosine with the query", fontsize=9)
    panels[0].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, 0.8))
    print_protocol(figure, first.protocol)
    save_figure(figure, path)


def _draw(axes: "Axes", name: str, row: Cosines) -> None:
    for label, colour, found in (
        ("other images", _OTHERS, row.others),
        ("target", _TARGET, row.target),
    ):
        axes.stairs(*_density(found), fill=True, alpha=0.35, color=colour, label=label)
        axes.stairs(*_density(found), color=colour, linewidth=0.8)
        axes.axvline(found.mean, color=colour, linestyle="--", linewidth=1)
    axes.set_title(name, fontsize=9, loc="left", fontweight="bold", parse_math=False)
    gap = f"gap {row.gap:.3f} ({row.separation:.2f} standard deviations)"
    axes.set_title(gap, fontsize=9, loc="right")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    plain(axes)


def _density(found: CosineDistribution) -> tuple[np.ndarray, np.ndarray]:
    """The share of the pairs in each bin, and the edges of the bins."""
    counts = found.counts.numpy()
    return counts / counts.sum(), np.linspace(-1, 1, len(counts) + 1)

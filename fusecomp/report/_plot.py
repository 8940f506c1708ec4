"""Figures as PNG files, without pyplot and its global state. Needs matplotlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fusecomp._core.files import open_atomic
from fusecomp.evaluation import describe_protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["new_figure", "plain", "print_protocol", "save_figure"]

_DPI = 150
_GREY = "#6b7280"


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, sizes in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plotting needs matplotlib: pip install "fusecomp[plots]"') from error
    return Figure(figsize=(width, height), layout="constrained")


def plain(axes: "Axes") -> None:
    """No box around the plot, and small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def print_protocol(figure: "Figure", protocol: Mapping[str, str]) -> None:
    """Below the figure, if it is known."""
    if protocol:
        text = describe_protocol(protocol)
        figure.supxlabel(text, fontsize=7, color=_GREY, parse_math=False)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a PNG, atomically."""
    with open_atomic(path) as file:
        figure.savefig(file, format="png", dpi=_DPI)

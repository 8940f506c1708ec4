"""Figures as PNG files, without pyplot and its global state. Needs matplotlib."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusecomp._core.checks import as_path, shown
from fusecomp._core.files import open_atomic
from fusecomp.evaluation import describe_protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, GREEN, GREY = "#1a1a1a", "#0a8f3c", "#6b7280"
_DPI = 150


def font_families(font: str | Path | None) -> list[str]:
    """Return the font families to draw with: that of a font file or name, then the default."""
    try:
        from matplotlib import rcParams
        from matplotlib.font_manager import FontProperties, findfont, fontManager
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "fusecomp[report]"') from error
    default = list(rcParams["font.family"])
    if font is None:
        return default
    path = as_path("font", font)
    family = str(path)
    try:
        if path.is_file():
            fontManager.addfont(path)
            family = FontProperties(fname=path).get_name()
        findfont(FontProperties(family=[family]), fallback_to_default=False)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"font must be a font file or an installed family, got {shown(font)} ({error})"
        ) from error
    return [family, *default]


def decorate(axes: "Axes") -> None:
    """Remove the box around a plot and make its ticks small."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def save_figure(
    figure: "Figure",
    path: Path,
    families: Sequence[str],
    protocol: Mapping[str, str] | None = None,
) -> None:
    """Write a figure as a PNG, atomically, with the protocol below it and texts in a font."""
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.text import Text

    if protocol:
        figure.supxlabel(describe_protocol(protocol), fontsize=7, color=GREY)
    files = (findfont(FontProperties(family=[family])) for family in families)
    drawable = {ord("\n")}.union(*(get_font(file).get_charmap() for file in files))
    missing = set()
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
        text.set_parse_math(False)  # captions and names are no formulas
        unknown = {ord(sign) for sign in text.get_text()} - drawable
        text.set_text(text.get_text().translate(dict.fromkeys(unknown, "\N{WHITE SQUARE}")))
        missing |= unknown
    if missing:
        warnings.warn(
            f"no font here draws {shown(''.join(map(chr, sorted(missing))))}: pass font=, a file "
            "or an installed family that has these characters",
            stacklevel=3,
        )
    with open_atomic(path) as file:
        # Half of the time for a sixth more bytes.
        figure.savefig(file, format="png", dpi=_DPI, pil_kwargs={"compress_level": 3})

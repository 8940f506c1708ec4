from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusecomp._core.checks import as_path, require_kind
from fusecomp._core.files import open_regular, reading
from fusecomp._core.strict_json import parse_json
from fusecomp.report._figure import BLACK, decorate, font_families, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS = {"loss": "loss", "gradient_norm": "gradient norm", "lr": "learning rate"}
_NO_METRICS = {"epoch", "skipped", *_PANELS}

_Record = Mapping[str, float]


def training_curves(
    log: str | Path,
    path: str | Path,
    protocol: Mapping[str, str] | None = None,
    *,
    font: str | Path | None = None,
) -> None:
    """Draw loss, metrics, gradient norm and learning rate of a training by epoch, as a PNG.

    The metrics are those of the validation over all tasks; the best epoch of each is marked.

    Args:
        log: the ``log.jsonl`` of a run, or its workdir.
        path: the PNG, written atomically.
        protocol: the validation set's, to print below; the log does not hold it.
        font: a font file or an installed family; see ``retrieval_sheet``.

    Raises:
        ImportError: if matplotlib is missing.
        FileNotFoundError: if there is no log.
        TypeError: if the protocol is no mapping.
        ValueError: if there is no such font, or the log is empty or no log of a training; the
            message names the line.
    """
    log, path = as_path("log", log), as_path("path", path)
    require_kind("protocol", protocol, Mapping | None, "a mapping")
    families = font_families(font)
    from matplotlib.figure import Figure

    records = _read(log / "log.jsonl" if log.is_dir() else log)
    figure = Figure((9, 6), layout="constrained")
    (loss, metrics), (norm, rate) = figure.subplots(2, 2)
    for axes, (name, title) in zip((loss, norm, rate), _PANELS.items(), strict=True):
        _plot(axes, *_series(records, name))
        _label(axes, title)
    norm.set_ylim(bottom=0)
    rate.set_ylim(bottom=0)
    _draw_metrics(metrics, records)
    handles, labels = metrics.get_legend_handles_labels()
    # Above the panels, where it hides no line.
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=7, frameon=False)
    for axes in figure.axes:
        axes.set_xlim(records[0]["epoch"] - 0.5, records[-1]["epoch"] + 0.5)
    save_figure(figure, path, families, protocol)


def _draw_metrics(axes: "Axes", records: Sequence[_Record]) -> None:
    from matplotlib import colormaps

    _label(axes, "validation, per cent")
    names = dict.fromkeys(name for record in records for name in record if name not in _NO_METRICS)
    # A metric with another task's name before it is that task's alone.
    over_all = [name for name in names if "/" not in name or name.startswith("mean/")]
    for number, name in enumerate(over_all):
        # The ten usual colours, then their lighter ones.
        colour = colormaps["tab20"](2 * number % 20 + number // 10 % 2)
        epochs, values = _series(records, name)
        _plot(axes, epochs, values, colour)
        best = max(range(len(values)), key=values.__getitem__)
        label = f"{name}: {values[best]:.2f} in epoch {epochs[best]:g}"
        axes.plot(epochs[best], values[best], "o", markersize=5, color=colour, label=label)
    if not over_all:
        axes.text(0.5, 0.5, "no validation", ha="center", transform=axes.transAxes, fontsize=9)


def _plot(
    axes: "Axes",
    epochs: Sequence[float],
    values: Sequence[float],
    colour: str | tuple[float, ...] = BLACK,
) -> None:
    # A line through one point is invisible.
    marker = "o" if len(epochs) == 1 else ""
    axes.plot(epochs, values, color=colour, linewidth=1.2, marker=marker, markersize=3)


def _label(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("epoch", fontsize=8)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.25, linewidth=0.5)
    decorate(axes)


def _series(records: Sequence[_Record], name: str) -> tuple[list[float], list[float]]:
    """Return the epochs that have a value, and the values."""
    having = [record for record in records if name in record]
    return [record["epoch"] for record in having], [record[name] for record in having]


def _read(path: Path) -> list[_Record]:
    if not path.is_file():
        raise FileNotFoundError(f"no log {path}; a training with a workdir writes log.jsonl there")
    with reading(path, "log", "not readable", "copy it again"), open_regular(path) as file:
        lines = file.read().splitlines()
    if not lines:
        raise ValueError(f"{path} is empty: no epoch has ended")
    records: list[_Record] = []
    for number, line in enumerate(lines, 1):
        record = parse_json(line, path, number)
        try:
            if not {"epoch", *_PANELS} <= set(record):
                raise ValueError(f"expected the fields epoch, {', '.join(_PANELS)}")
            records.append({name: float(value) for name, value in record.items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: no epoch of a training ({error})") from error
    return records

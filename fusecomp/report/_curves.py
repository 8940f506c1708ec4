from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusecomp._core.checks import as_path, shown
from fusecomp._core.files import open_regular, reading
from fusecomp._core.strict_json import parse_json
from fusecomp.report._plot import new_figure, plain, print_protocol, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["training_curves"]

_PANELS = {"loss": "loss", "gradient_norm": "gradient norm", "lr": "learning rate"}
_NO_METRICS = {"epoch", "skipped", *_PANELS}

_Record = Mapping[str, float]


def training_curves(
    log: str | Path, path: str | Path, protocol: Mapping[str, str] | None = None
) -> None:
    """Draw loss, metrics, gradient norm and learning rate of a training by epoch, as a PNG.

    Of the validation's metrics it draws those over all tasks; the best epoch of each is marked.

    Args:
        log: the ``log.jsonl`` of a run, or its workdir.
        path: the PNG, written atomically.
        protocol: of the validation set, to be printed below; the log does not hold it.

    Raises:
        ImportError: if matplotlib is missing.
        FileNotFoundError: if there is no log.
        TypeError: if the protocol is no mapping.
        ValueError: if log or path are no paths, or the log is empty or no log of a training; the
            message names the line.
    """
    log, path = as_path("log", log), as_path("path", path)
    if not isinstance(protocol, Mapping | None):
        raise TypeError(f"protocol must be a mapping, got {shown(protocol)}")
    records = _read(log / "log.jsonl" if log.is_dir() else log)
    figure = new_figure(9, 6)
    (loss, metrics), (norm, rate) = figure.subplots(2, 2)
    for axes, (name, title) in zip((loss, norm, rate), _PANELS.items(), strict=True):
        epochs, values = _series(records, name)
        axes.plot(epochs, values, color="#1f2937", linewidth=1.2, **_marker(epochs))
        axes.set_title(title, fontsize=10, loc="left")
    norm.set_ylim(bottom=0)
    rate.set_ylim(bottom=0)
    _draw_metrics(metrics, records)
    for axes in (loss, metrics, norm, rate):
        axes.set_xlabel("epoch", fontsize=8)
        axes.grid(alpha=0.25, linewidth=0.5)
        plain(axes)
    print_protocol(figure, protocol or {})
    save_figure(figure, path)


def _draw_metrics(axes: "Axes", records: Sequence[_Record]) -> None:
    axes.set_title("validation, per cent", fontsize=10, loc="left")
    names = _metric_names(records)
    for name in names:
        epochs, values = _series(records, name)
        (line,) = axes.plot(epochs, values, linewidth=1.2, **_marker(epochs))
        best = max(range(len(values)), key=values.__getitem__)
        label = f"{name}: {values[best]:.2f} in epoch {epochs[best]:g}"
        axes.plot(
            epochs[best], values[best], "o", markersize=5, color=line.get_color(), label=label
        )
    if names:
        for text in axes.legend(fontsize=7, frameon=False).get_texts():
            text.set_parse_math(False)
    else:
        axes.text(0.5, 0.5, "no validation", ha="center", transform=axes.transAxes, fontsize=9)


def _metric_names(records: Sequence[_Record]) -> list[str]:
    """The metrics over all tasks."""
    names = dict.fromkeys(name for record in records for name in record if name not in _NO_METRICS)
    return [name for name in names if "/" not in name or name.startswith("mean/")]


def _series(records: Sequence[_Record], name: str) -> tuple[list[float], list[float]]:
    """The epochs that have a value, and the values."""
    having = [record for record in records if name in record]
    return [record["epoch"] for record in having], [record[name] for record in having]


def _marker(epochs: Sequence[float]) -> dict[str, Any]:
    # A line through one point is invisible.
    return {"marker": "o", "markersize": 3} if len(epochs) == 1 else {}


def _read(path: Path) -> list[_Record]:
    if not path.is_file():
        raise FileNotFoundError(f"no log {path}; a training with a workdir writes log.jsonl there")
    records = list(_records(path))
    if not records:
        raise ValueError(f"{path} is empty: no epoch has ended")
    return records


def _records(path: Path) -> Iterator[_Record]:
    with reading(path, "log", "not readable", "copy it again"), open_regular(path) as file:
        lines = file.read().splitlines()
    for number, line in enumerate(lines, start=1):
        record = parse_json(line, path, number)
        try:
            if not {"epoch", *_PANELS} <= set(record):
                raise ValueError(f"expected the fields epoch, {', '.join(_PANELS)}")
            yield {name: float(value) for name, value in record.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: no epoch of a training ({error})") from error

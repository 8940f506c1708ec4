import json
import re
from collections.abc import Iterable, Mapping
from itertools import chain, count
from pathlib import Path

import numpy as np

from fusecomp._core.checks import as_path, as_text, require_kind, shown
from fusecomp._core.files import open_atomic
from fusecomp._core.strict_json import parse_json, write_json
from fusecomp.evaluation import Evaluation
from fusecomp.report._figure import font_families
from fusecomp.report._query_results import require_dataset
from fusecomp.report._score_tables import ablation_table
from fusecomp.report._sheets import contact_sheet, retrieval_sheet
from fusecomp.types import Dataset

_SHEET = "triplets.png"
_TRIPLETS, _QUERIES = 12, 10
_LONGEST_NAME = 80
# Written into metrics.json next to the settings.
_RESERVED = ("protocol", "metrics")


def write_report(
    rows: Mapping[str, Evaluation],
    dataset: Dataset,
    folder: str | Path,
    *,
    title: str,
    note: str = "",
    settings: Mapping[str, object] | None = None,
    font: str | Path | None = None,
) -> None:
    """Write evaluations of one protocol into a folder: numbers, a page, sheets of images.

    The folder gets ``report.md`` with the table, ``metrics.json``, ``evaluation.npz`` (the last
    row's ranking, for ``fusecomp compare``), ``triplets.png`` (a few queries) and, for each task,
    ``results-TASK.png`` (results of some queries in the last row), or ``results.png`` where the
    only task has no name; odd characters of a name become ``-``.

    Args:
        rows: evaluations by name, such as ``training.ablation(...).evaluations``.
        dataset: the one that was evaluated; knows where the images are.
        folder: is made if it is missing.
        title: the headline of the page.
        note: a paragraph for the page, such as how the numbers may not be compared.
        settings: further values for ``metrics.json``, such as ``{"seed": 0}``, also of NumPy.
        font: a font file or an installed family; see ``retrieval_sheet``.

    Raises:
        ImportError: if matplotlib or Pillow is missing.
        TypeError: if an argument is something else, as when they are swapped.
        ValueError: if there is no row, metrics differ, or settings or font are not as above.
        OSError: if writing fails.
    """
    table = str(ablation_table(rows))
    require_dataset(dataset)
    folder = as_path("folder", folder)
    as_text("title", title)
    as_text("note", note)
    settings = {} if settings is None else settings
    plain = _plain_settings(settings)
    font_families(font)  # raises before anything is written
    *_, last = rows.values()
    metrics = {name: dict(evaluation) for name, evaluation in rows.items()}
    about = "; ".join(f"{name} {value}" for name, value in settings.items())
    sheets = _sheet_names(last.ranking)
    content = {"protocol": dict(last.protocol), **plain, "metrics": metrics}
    write_json(folder / "metrics.json", content)
    last.save(folder / "evaluation.npz")
    with open_atomic(folder / "report.md") as file:
        parts = filter(None, (f"# {title}", about, note, table, _links(sheets)))
        file.write(("\n\n".join(parts) + "\n").encode(errors="backslashreplace"))
    queries = dataset.triplets()
    some = [queries[position] for position in _spread(len(queries), _TRIPLETS)]
    contact_sheet(some, dataset, folder / _SHEET, font=font)
    for task, name in sheets.items():
        ranking = last.ranking[task]
        chosen = _spread(len(ranking.task.queries), _QUERIES)
        retrieval_sheet(ranking, dataset, folder / name, chosen, font=font)


def _plain_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the settings as they come back from JSON."""
    require_kind("settings", settings, Mapping, "a mapping")
    plain: dict[str, object] = {}
    for name, value in settings.items():
        if not isinstance(name, str) or name in _RESERVED:
            raise ValueError(
                f"settings must be named by strings, and not {' or '.join(map(repr, _RESERVED))}, "
                f"which the report itself writes; got {shown(name)}"
            )
        try:
            text = json.dumps(value, default=_without_numpy, allow_nan=False)
            plain[name] = parse_json(text, name)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"settings[{name!r}] must be what JSON has, got {shown(value)} ({error}); write it "
                "as a string, a finite number, or a list or dict of these"
            ) from error
    return plain


def _without_numpy(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is unknown to JSON")


def _sheet_names(tasks: Iterable[str]) -> dict[str, str]:
    """Return a file name for each task: within the folder, and never that of another one."""
    names: dict[str, str] = {}
    # Some file systems take upper and lower case for the same.
    taken: set[str] = set()
    for task in tasks:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", task)[:_LONGEST_NAME]
        numbers = (f"{plain}-{number}" for number in count(2))
        name = next(n for n in chain([plain], numbers) if n.lower() not in taken)
        taken.add(name.lower())
        names[task] = f"results-{name}.png" if task else "results.png"
    return names


def _links(sheets: Mapping[str, str]) -> str:
    titles = {task: re.sub(r"[\\\[\]]", r"\\\g<0>", " ".join(task.split())) for task in sheets}
    links = ", ".join(f"[{titles[task] or 'all'}]({file})" for task, file in sheets.items())
    return (
        f"Some triplets: [{_SHEET}]({_SHEET}). What the last row found: {links}. A number is a "
        "score (the cosine, or a similarity of the fusion's own), a green frame the target; where "
        "it is not among the best, it is behind them, and its rank below the text."
    )


def _spread(count: int, limit: int) -> range:
    """Return at most ``limit`` positions, spread evenly over all."""
    return range(0, count, max(1, count // limit))[:limit]

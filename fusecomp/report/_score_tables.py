"""Tables of evaluations: ablations, intervals, and one's own results among published ones."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from fusecomp.evaluation import Evaluation, bootstrap, describe_protocol, protocol_differences
from fusecomp.report._named_rows import differences_of
from fusecomp.report._table import Table, short

_SYSTEM = itemgetter("dataset", "split", "system", "source", "protocol")


def ablation_table(rows: Mapping[str, Evaluation]) -> Table:
    """Tabulate evaluations of one protocol, one row each, in per cent.

    A row whose protocol differs from the first one's is set apart, with the options that differ.

    Args:
        rows: evaluations by name.

    Raises:
        TypeError: unless rows map names to evaluations.
        ValueError: if there is no row, or metrics differ.

    Warns:
        ProtocolWarning: if protocols differ; it names the difference.
    """
    differences = differences_of(rows, Evaluation)
    first = next(iter(rows.values()))
    cells = {name: (name, *(f"{v:.2f}" for v in row.values())) for name, row in rows.items()}
    content: list[dict[str, object]] = []
    for name, row in rows.items():
        content.append({"name": name, "metrics": dict(row)})
        if found := differences[name]:
            content[-1] |= {"protocol": dict(row.protocol), "differs_in": found}
    return Table(
        head=("", *map(short, first)),
        rows=[cells[name] for name, found in differences.items() if not found],
        apart=[(cells[name], ", ".join(found)) for name, found in differences.items() if found],
        notes=(f"In per cent; {describe_protocol(first.protocol)}",),
        content={"protocol": dict(first.protocol), "rows": content},
    )


def interval_table(evaluation: Evaluation, *, resamples: int = 10_000, seed: int = 0) -> Table:
    """Tabulate each metric with its 95 % interval, in per cent.

    Args:
        evaluation: gives the metrics.
        resamples: the number of resamples of ``bootstrap``.
        seed: the same one gives the same intervals.

    Raises:
        TypeError: if this is no evaluation.
        ValueError: if resamples are no whole number of at least 1, or seed none of at least 0.
    """
    intervals = bootstrap(evaluation, resamples=resamples, seed=seed)
    return Table(
        head=("", "value", "95 % interval"),
        rows=[
            (short(name), f"{evaluation[name]:.2f}", f"[{low:.2f}, {high:.2f}]")
            for name, (low, high) in intervals.items()
        ],
        notes=(
            "; ".join(("In per cent", *evaluation.ranking.summary())),
            f"Percentile bootstrap over queries, {resamples:,} resamples, seed {seed}",
        ),
        content={
            "protocol": dict(evaluation.protocol),
            "resamples": resamples,
            "seed": seed,
            "metrics": {
                name: {"value": evaluation[name], **interval._asdict()}
                for name, interval in intervals.items()
            },
        },
    )


def comparison_table(rows: Mapping[str, Evaluation]) -> Table:
    """Tabulate one's own results among the published ones of FashionIQ or CIRR, in per cent.

    Published numbers are shown as printed, each with its source. A row whose protocol differs from
    that of the first own row is set apart, with the options that differ. If the own rows have fewer
    categories than the published means, only the categories are compared.

    Args:
        rows: evaluations of ``datasets.FashionIQ`` or ``datasets.CIRR`` by name.

    Raises:
        TypeError: unless rows map names to evaluations.
        ValueError: if there is no row, metrics differ, or nothing is published of them.

    Warns:
        ProtocolWarning: if one's own rows differ in protocol.
    """
    differences_of(rows, Evaluation)
    first = next(iter(rows.values()))
    published = _of_dataset(first.protocol.get("dataset"))
    columns = _columns(first, published)
    lines = [line for line in published if line.metrics.keys() & set(columns)]
    lines += [Published(n, "own result", e.protocol, e) for n, e in rows.items()]
    table: list[tuple[Published, list[str]]] = []
    for line in lines:
        # An option that a source does not state is not held against it.
        known = {n: value for n, value in first.protocol.items() if n not in line.unstated}
        table.append((line, protocol_differences(line.protocol, known)))
    return Table(
        head=("", *map(short, columns), "source"),
        rows=[_cells(line, columns) for line, found in table if not found],
        apart=[(_cells(line, columns), ", ".join(found)) for line, found in table if found],
        notes=(
            f"In per cent; {'; '.join(first.ranking.summary())}",
            "Published numbers as printed; an empty cell was not printed",
            *(f"{line.name}: {note}" for line in lines for note in _notes(line)),
        ),
        content={
            "protocol": dict(first.protocol),
            "rows": [
                line._asdict()
                | {"protocol": dict(line.protocol), "differs_in": found}
                | {"metrics": {c: line.metrics[c] for c in columns if c in line.metrics}}
                for line, found in table
            ],
        },
    )


class Published(NamedTuple):
    """One row of a published table: metrics in per cent, under the names of ``evaluate``.

    A number that no source prints is absent, also where it could be computed.
    """

    name: str
    source: str
    protocol: Mapping[str, str]
    metrics: Mapping[str, float]
    unstated: Sequence[str] = ()  # options that the source does not state
    secondary: Sequence[str] = ()  # metrics read in a secondary list whose arithmetic agrees
    notes: Sequence[str] = ()


def published_rows() -> Iterator[Published]:
    """Read all published rows."""
    text = resources.files("fusecomp.report").joinpath("published.csv").read_text("utf-8")
    for (dataset, split, system, source, protocol), group in groupby(
        csv.DictReader(text.splitlines()), _SYSTEM
    ):
        lines = [{**line, "name": f"{line['task']}/{line['metric']}".strip("/")} for line in group]
        options = dict(option.split(" ", 1) for option in protocol.split(", "))
        stated = {name: value for name, value in options.items() if value != "not stated"}
        yield Published(
            system,
            source,
            {"dataset": dataset, "split": split, **stated},
            {line["name"]: float(line["value"]) for line in lines},
            unstated=[name for name in options if name not in stated],
            secondary=[line["name"] for line in lines if line["mark"] == "secondary list"],
            notes=[line["note"] for line in lines if line["note"]],
        )


def _of_dataset(dataset: str | None) -> list[Published]:
    published = list(published_rows())
    names = dict.fromkeys(line.protocol["dataset"] for line in published)
    if dataset not in names:
        raise ValueError(
            f"no numbers are published of {dataset!r}; there are of {', '.join(names)}"
        )
    return [line for line in published if line.protocol["dataset"] == dataset]


def _columns(evaluation: Evaluation, published: Sequence[Published]) -> list[str]:
    """List the metrics that the evaluation shares with a published row."""
    printed = {metric for line in published for metric in line.metrics}
    tasks = {metric.rpartition("/")[0] for metric in printed} - {"", "mean"}
    # A mean over fewer tasks is another number than the published one of the same name.
    complete = tasks == set(evaluation.ranking) - {""}
    columns = [
        metric
        for metric in evaluation
        if metric in printed and (complete or metric.rpartition("/")[0] in evaluation.ranking)
    ]
    if not columns:
        raise ValueError(f"none of the metrics {', '.join(evaluation)} is published")
    return columns


def _cells(line: Published, columns: Sequence[str]) -> tuple[str, ...]:
    unstated = f"; {' and '.join(line.unstated)} not stated" if line.unstated else ""
    values = (f"{line.metrics[c]:.2f}" if c in line.metrics else "" for c in columns)
    return (line.name, *values, f"{line.source}{unstated}")


def _notes(line: Published) -> Iterator[str]:
    if line.secondary:
        yield f"{', '.join(map(short, line.secondary))} from a secondary list"
    yield from line.notes

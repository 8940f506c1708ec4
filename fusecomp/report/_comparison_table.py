from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusecomp.evaluation import Evaluation, protocol_differences
from fusecomp.report._protocol_warning import differences_of
from fusecomp.report._published import PUBLISHED, TASKS, Published
from fusecomp.report._table import Table, short

__all__ = ["comparison_table"]


@dataclass(frozen=True, slots=True)
class _Line:
    """A row, published or one's own."""

    name: str
    source: str
    protocol: Mapping[str, str]
    metrics: Mapping[str, float]
    differences: Sequence[str]
    more: Mapping[str, Any]

    def cells(self, columns: Sequence[str]) -> tuple[str, ...]:
        values = (f"{self.metrics[c]:.2f}" if c in self.metrics else "" for c in columns)
        return (self.name, *values, self.source)

    def content(self, columns: Sequence[str]) -> dict[str, Any]:
        return {
            "name": self.name,
            "source": self.source,
            "protocol": dict(self.protocol),
            "differs_in": list(self.differences),
            "metrics": {c: self.metrics[c] for c in columns if c in self.metrics},
            **self.more,
        }


def comparison_table(rows: Mapping[str, Evaluation]) -> Table:
    """One's own results among the published ones of FashionIQ or CIRR, in per cent.

    Published numbers stand as they were printed, each with its source; what was not printed is
    left empty. What is of another protocol than the first of one's own rows is set apart, with
    what it differs in. Of fewer categories than the published means are over, only the
    categories are compared.

    Args:
        rows: name -> evaluation, of ``datasets.FashionIQ`` or ``datasets.CIRR``.

    Raises:
        TypeError: unless rows map names to evaluations.
        ValueError: if there is no row, nothing is published of the dataset, no published metric
            is among those of the first row, or another row has other metrics.

    Warns:
        ProtocolWarning: if one's own rows differ in protocol.
    """
    differences = differences_of(rows, Evaluation, "there is no evaluation to show")
    (first_name, first), *_ = rows.items()
    published = _of_dataset(first)
    columns = _columns(first, published)
    lines = list(_published_lines(published, columns, first))
    for name, evaluation in rows.items():
        if list(evaluation) != list(first):
            raise ValueError(
                f"{name!r} has other metrics than {first_name!r}: give each a table of its own"
            )
        lines.append(
            _Line(name, "own result", evaluation.protocol, evaluation, differences[name], more={})
        )
    notes = [f"{r.system}: {note}" for r in published for note in (*_listed(r), r.note) if note]
    return Table(
        head=("", *map(short, columns), "source"),
        rows=[line.cells(columns) for line in lines if not line.differences],
        apart=[
            (line.cells(columns), ", ".join(line.differences)) for line in lines if line.differences
        ],
        notes=(
            f"In per cent; {'; '.join(first.ranking.summary())}",
            "Published numbers as printed; an empty cell was not printed",
            *notes,
        ),
        content={
            "protocol": dict(first.protocol),
            "rows": [line.content(columns) for line in lines],
        },
    )


def _of_dataset(evaluation: Evaluation) -> list[Published]:
    dataset = evaluation.protocol.get("dataset")
    if dataset not in TASKS:
        raise ValueError(
            f"nothing is published of the dataset {dataset!r}; there is of {', '.join(TASKS)}"
        )
    return [row for row in PUBLISHED if row.protocol["dataset"] == dataset]


def _columns(evaluation: Evaluation, published: Sequence[Published]) -> list[str]:
    """The metrics that the evaluation shares with a published row."""
    complete = set(evaluation.ranking) == set(TASKS[evaluation.protocol["dataset"]])
    # A mean over fewer tasks is another number than the published one of the same name.
    own = [
        metric
        for metric in evaluation
        if complete or metric.rpartition("/")[0] in evaluation.ranking
    ]
    columns = [metric for metric in own if any(metric in row.metrics for row in published)]
    if not columns:
        raise ValueError(f"none of the metrics {', '.join(evaluation)} is published")
    return columns


def _published_lines(
    published: Sequence[Published], columns: Sequence[str], evaluation: Evaluation
) -> Iterator[_Line]:
    for row in published:
        if not row.metrics.keys() & set(columns):
            continue
        # What a source does not say cannot be held against it.
        own = {n: v for n, v in evaluation.protocol.items() if n not in row.unstated}
        unstated = f"; {' and '.join(row.unstated)} not stated" if row.unstated else ""
        yield _Line(
            row.system,
            f"{row.source}{unstated}",
            row.protocol,
            row.metrics,
            protocol_differences(row.protocol, own),
            more={"unstated": list(row.unstated), "listed": list(row.listed), "note": row.note},
        )


def _listed(row: Published) -> Iterator[str]:
    if row.listed:
        yield f"{', '.join(map(short, row.listed))} from a secondary list"

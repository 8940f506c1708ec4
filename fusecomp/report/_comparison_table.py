from collections.abc import Iterator, Mapping, Sequence

from fusecomp.evaluation import Evaluation, protocol_differences
from fusecomp.report._named_rows import differences_of
from fusecomp.report._published import Published, published_rows
from fusecomp.report._table import Table, short


def comparison_table(rows: Mapping[str, Evaluation]) -> Table:
    """Tabulate one's own results among the published ones of FashionIQ or CIRR, in per cent.

    Published numbers are shown as printed, each with its source; a number that was not printed is
    left empty. A row whose protocol differs from that of the first own row is set apart, with the
    options that differ. If the own rows have fewer categories than the published means, only the
    categories are compared.

    Args:
        rows: evaluations of ``datasets.FashionIQ`` or ``datasets.CIRR`` by name.

    Raises:
        TypeError: unless rows map names to evaluations.
        ValueError: if there is no row, nothing is published of the dataset, no published metric
            is among those of the first row, or another row has other metrics.

    Warns:
        ProtocolWarning: if one's own rows differ in protocol.
    """
    differences_of(rows, Evaluation)
    first = next(iter(rows.values()))
    published = _of_dataset(first.protocol.get("dataset"))
    columns = _columns(first, published)
    lines = [line for line in published if line.metrics.keys() & set(columns)]
    lines += [Published(n, "own result", e.protocol, e) for n, e in rows.items()]
    table = [(line, _cells(line, columns), _differences(line, first.protocol)) for line in lines]
    return Table(
        head=("", *map(short, columns), "source"),
        rows=[cells for _, cells, differences in table if not differences],
        apart=[(cells, ", ".join(differences)) for _, cells, differences in table if differences],
        notes=(
            f"In per cent; {'; '.join(first.ranking.summary())}",
            "Published numbers as printed; an empty cell was not printed",
            *(f"{line.name}: {note}" for line in lines for note in _notes(line)),
        ),
        content={
            "protocol": dict(first.protocol),
            "rows": [
                line._asdict()
                | {"protocol": dict(line.protocol), "differs_in": differences}
                | {"metrics": {c: line.metrics[c] for c in columns if c in line.metrics}}
                for line, _, differences in table
            ],
        },
    )


def _of_dataset(dataset: str | None) -> list[Published]:
    published = list(published_rows())
    names = dict.fromkeys(line.protocol["dataset"] for line in published)
    if dataset not in names:
        raise ValueError(
            f"nothing is published of the dataset {dataset!r}; there is of {', '.join(names)}"
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


def _differences(line: Published, protocol: Mapping[str, str]) -> list[str]:
    # An option that a source does not state is not held against it.
    known = {name: value for name, value in protocol.items() if name not in line.unstated}
    return protocol_differences(line.protocol, known)


def _cells(line: Published, columns: Sequence[str]) -> tuple[str, ...]:
    unstated = f"; {' and '.join(line.unstated)} not stated" if line.unstated else ""
    values = (f"{line.metrics[c]:.2f}" if c in line.metrics else "" for c in columns)
    return (line.name, *values, f"{line.source}{unstated}")


def _notes(line: Published) -> Iterator[str]:
    if line.secondary:
        yield f"{', '.join(map(short, line.secondary))} from a secondary list"
    yield from line.notes

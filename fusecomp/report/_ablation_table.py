from collections.abc import Mapping

from fusecomp.evaluation import Evaluation, describe_protocol
from fusecomp.report._named_rows import differences_of
from fusecomp.report._table import Table, short


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
    cells, apart, content = [], [], []
    for name, evaluation in rows.items():
        row = (name, *(f"{value:.2f}" for value in evaluation.values()))
        entry: dict[str, object] = {"name": name, "metrics": dict(evaluation)}
        if differences[name]:
            apart.append((row, ", ".join(differences[name])))
            entry |= {"protocol": dict(evaluation.protocol), "differs_in": differences[name]}
        else:
            cells.append(row)
        content.append(entry)
    return Table(
        head=("", *map(short, first)),
        rows=cells,
        apart=apart,
        notes=(f"In per cent; {describe_protocol(first.protocol)}",),
        content={"protocol": dict(first.protocol), "rows": content},
    )

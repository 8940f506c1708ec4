from collections.abc import Mapping
from typing import Any

from fusecomp.evaluation import Evaluation, describe_protocol
from fusecomp.report._protocol_warning import differences_of
from fusecomp.report._table import Table, short

__all__ = ["ablation_table"]


def ablation_table(rows: Mapping[str, Evaluation]) -> Table:
    """Evaluations of one protocol below each other, in per cent.

    The first row's protocol is the table's; a row of another one is set apart, with what it
    differs in.

    Args:
        rows: name -> evaluation.

    Raises:
        TypeError: unless rows map names to evaluations.
        ValueError: if there is no row, or metrics differ.

    Warns:
        ProtocolWarning: if protocols differ; it names the difference.
    """
    differences = differences_of(rows, Evaluation, "there is no evaluation to show")
    (first_name, first), *_ = rows.items()
    content: list[dict[str, Any]] = []
    cells, apart = [], []
    for name, evaluation in rows.items():
        if list(evaluation) != list(first):
            raise ValueError(
                f"{first_name!r} has the metrics {', '.join(first)} and {name!r} "
                f"{', '.join(evaluation)}: they do not stand in one table"
            )
        row = (name, *(f"{value:.2f}" for value in evaluation.values()))
        content.append({"name": name, "metrics": dict(evaluation)})
        if not differences[name]:
            cells.append(row)
            continue
        apart.append((row, ", ".join(differences[name])))
        content[-1] |= {"protocol": dict(evaluation.protocol), "differs_in": differences[name]}
    return Table(
        head=("", *map(short, first)),
        rows=cells,
        apart=apart,
        notes=(f"In per cent; {describe_protocol(first.protocol)}",),
        content={"protocol": dict(first.protocol), "rows": content},
    )

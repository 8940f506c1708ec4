"""Checks of the named rows that a table or figure compares."""

from collections.abc import Mapping

from fusecomp._core.checks import shown
from fusecomp.evaluation import Cosines, Evaluation, protocol_differences, warn_of_differences


def differences_of(
    rows: Mapping[str, Evaluation | Cosines], kind: type, empty: str
) -> dict[str, list[str]]:
    """List for each row in what its protocol differs from the first one's.

    Raises:
        TypeError: unless the rows are a mapping from names to objects of this kind.
        ValueError: if there is no row, with the message ``empty``.

    Warns:
        ProtocolWarning: the caller of the report, of each row that differs.
    """
    if not isinstance(rows, Mapping):
        raise TypeError(f"rows must map names to {kind.__name__}, got {shown(rows)}")
    for name, row in rows.items():
        if not isinstance(name, str) or not isinstance(row, kind):
            raise TypeError(
                f"rows must map names to {kind.__name__}, but {shown(name)} has {shown(row)}"
            )
    if not rows:
        raise ValueError(empty)
    first_name, first = next(iter(rows.items()))
    found = {n: protocol_differences(row.protocol, first.protocol) for n, row in rows.items()}
    for name, differences in found.items():
        if differences:
            warn_of_differences(name, first_name, differences, level=4)
    return found


def require_same_metrics(rows: Mapping[str, Evaluation]) -> None:
    """Raise ValueError unless all rows have the metrics of the first one, in its order."""
    first_name, first = next(iter(rows.items()))
    for name, evaluation in rows.items():
        if list(evaluation) != list(first):
            raise ValueError(
                f"{first_name!r} has the metrics {', '.join(first)} and {name!r} "
                f"{', '.join(evaluation)}: give each a table of its own"
            )

"""Checks of the named rows that a table or figure compares."""

from collections.abc import Mapping

from fusecomp._core.checks import shown
from fusecomp.evaluation import Cosines, Evaluation, protocol_differences, warn_of_differences


def differences_of(rows: Mapping[str, Evaluation | Cosines], kind: type) -> dict[str, list[str]]:
    """Return how each row's protocol differs from the first one's; warn the report's caller.

    TypeError unless all rows are of this kind; ValueError if there is none, or metrics differ.
    """
    kinds = f"rows must map names to {kind.__name__}"
    if not isinstance(rows, Mapping):
        raise TypeError(f"{kinds}, got {shown(rows)}")
    for name, row in rows.items():
        if not isinstance(name, str) or not isinstance(row, kind):
            raise TypeError(f"{kinds}, but {shown(name)} has {shown(row)}")
    if not rows:
        raise ValueError(f"{kinds}, at least one; got none")
    first_name, first = next(iter(rows.items()))
    for name, row in rows.items():
        if isinstance(first, Evaluation) and isinstance(row, Evaluation) and [*row] != [*first]:
            raise ValueError(
                f"{first_name!r} has the metrics {', '.join(first)} and {name!r} "
                f"{', '.join(row)}: give each a table of its own"
            )
    found = {n: protocol_differences(row.protocol, first.protocol) for n, row in rows.items()}
    for name, differences in found.items():
        if differences:
            warn_of_differences(name, first_name, differences, level=4)
    return found

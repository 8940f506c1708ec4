from collections.abc import Mapping
from typing import Protocol

from fusecomp.evaluation import protocol_differences, warn_of_differences
from fusecomp.report._given import require_rows

__all__ = ["differences_of"]


class _Row(Protocol):
    @property
    def protocol(self) -> Mapping[str, str]: ...


def differences_of(rows: Mapping[str, _Row], kind: type, empty: str) -> dict[str, list[str]]:
    """What each row's protocol differs in from the first one's.

    Raises:
        TypeError: unless the rows are a mapping from names to objects of this kind.
        ValueError: if there is no row, with the message ``empty``.

    Warns:
        ProtocolWarning: the caller of the report, of each row that differs.
    """
    require_rows(rows, kind)
    if not rows:
        raise ValueError(empty)
    first_name, first = next(iter(rows.items()))
    found = {n: protocol_differences(row.protocol, first.protocol) for n, row in rows.items()}
    for name, differences in found.items():
        if differences:
            warn_of_differences(name, first_name, differences, level=4)
    return found

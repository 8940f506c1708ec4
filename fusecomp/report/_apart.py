import warnings
from collections.abc import Mapping, Sequence
from typing import Protocol

from fusecomp.evaluation import ProtocolWarning, protocol_differences

__all__ = ["differences_of", "warn_apart"]


class _Row(Protocol):
    @property
    def protocol(self) -> Mapping[str, str]: ...


def differences_of(rows: Mapping[str, _Row], empty: str) -> dict[str, list[str]]:
    """What each row's protocol differs in from the first one's.

    Raises:
        ValueError: if there is no row, with the message ``empty``.

    Warns:
        ProtocolWarning: the caller of the report, of each row that differs.
    """
    if not rows:
        raise ValueError(empty)
    first_name, first = next(iter(rows.items()))
    found = {n: protocol_differences(row.protocol, first.protocol) for n, row in rows.items()}
    for name, differences in found.items():
        if differences:
            warn_apart(name, first_name, differences, level=4)
    return found


def warn_apart(one: str, other: str, differences: Sequence[str], level: int = 3) -> None:
    """Warn the caller of a report that the scores of two do not compare."""
    warnings.warn(
        f"{one!r} and {other!r} do not compare: {', '.join(differences)}",
        ProtocolWarning,
        stacklevel=level,
    )

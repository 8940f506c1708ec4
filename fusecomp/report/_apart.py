import warnings
from collections.abc import Sequence

from fusecomp.evaluation import ProtocolWarning

__all__ = ["warn_apart"]


def warn_apart(one: str, other: str, differences: Sequence[str]) -> None:
    """Warn the caller of a report that the scores of two do not compare."""
    warnings.warn(
        f"{one!r} and {other!r} do not compare: {', '.join(differences)}",
        ProtocolWarning,
        stacklevel=3,
    )

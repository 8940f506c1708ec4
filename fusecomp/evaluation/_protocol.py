import warnings
from collections.abc import Mapping, Sequence

from fusecomp._core.checks import require_kind

_UNSAID = "not said"
_EXPECTED = "a protocol, a mapping of options"


class ProtocolWarning(UserWarning):
    """Warns of scores of different protocols in one table."""


def describe_protocol(protocol: Mapping[str, str]) -> str:
    """Write a protocol as one line.

    Raises:
        TypeError: if it is no mapping.

    Example:
        >>> describe_protocol({"dataset": "CIRR", "reference": "excluded"})
        'dataset CIRR, reference excluded'
    """
    require_kind("protocol", protocol, Mapping, _EXPECTED)
    return ", ".join(f"{name} {value}" for name, value in protocol.items())


def protocol_differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the options in which two protocols differ, the first one's value first.

    Raises:
        TypeError: if one is no mapping.

    Example:
        >>> protocol_differences({"gallery": "original"}, {"gallery": "val", "missing": "1 of 9"})
        ['gallery original / val', 'missing not said / 1 of 9']
    """
    require_kind("one", one, Mapping, _EXPECTED)
    require_kind("other", other, Mapping, _EXPECTED)
    return [
        f"{name} {one.get(name, _UNSAID)} / {other.get(name, _UNSAID)}"
        for name in {**one, **other}
        if one.get(name) != other.get(name)
    ]


def warn_of_differences(one: str, other: str, differences: Sequence[str], level: int = 3) -> None:
    """Warn the caller of a report that the scores of two do not compare."""
    warnings.warn(
        f"{one!r} and {other!r} do not compare: {', '.join(differences)}",
        ProtocolWarning,
        stacklevel=level,
    )

"""One rule for what a loss or fusion needs beyond its tensors: what it names, it gets."""

import inspect
from collections.abc import Callable, Sequence

from torch import nn

from fusecomp._core.foreign import inside, optional
from fusecomp.types import NamesKeywords

_NAMED = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def taken_keywords(part: Callable[..., object], offered: Sequence[str]) -> tuple[str, ...]:
    """Return those of the offered keywords that a callable names in its signature.

    ``**kwargs`` names nothing. A module is asked for ``forward``, a part made of others for theirs.
    """
    part = inside(part)
    named = part.named_keywords if isinstance(part, NamesKeywords) else _parameters(part)
    return tuple(keyword for keyword in offered if keyword in named)


def needed_keywords(part: Callable[..., object], offered: Sequence[str]) -> tuple[str, ...]:
    """Return those of the offered keywords that a callable names without a default."""
    parameters = _parameters(inside(part))
    needed = {name for name, p in parameters.items() if p.default is inspect.Parameter.empty}
    return tuple(keyword for keyword in offered if keyword in needed)


def require_known(kind: str, part: Callable[..., object], offered: Sequence[str]) -> None:
    """Raise ValueError where a callable of two tensors needs more than the offered keywords."""
    parameters = _parameters(inside(part))
    given = [name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY][:2]
    needed = (name for name, p in parameters.items() if p.default is p.empty)
    if unknown := [name for name in needed if name not in (*given, *offered)]:
        name = optional(part, "__name__", type(inside(part)).__name__)
        raise ValueError(
            f"the {kind} {name} needs {', '.join(unknown)}, which nothing "
            f"gives it: beyond its two tensors a {kind} can name {', '.join(offered)}"
        )


def _parameters(part: Callable[..., object]) -> dict[str, inspect.Parameter]:
    try:
        signature = inspect.signature(part.forward if isinstance(part, nn.Module) else part)
    except ValueError:  # a builtin tells nothing
        return {}
    return {name: p for name, p in signature.parameters.items() if p.kind in _NAMED}

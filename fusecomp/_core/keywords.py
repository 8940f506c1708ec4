"""One rule for what a loss or fusion needs beyond its tensors: what it names, it gets."""

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from torch import nn

from fusecomp._core.foreign import inside, optional
from fusecomp.types import NamesKeywords

# How alike two names are that are probably meant to be one.
_ALIKE = 0.85
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
    """Raise ValueError where a callable of two tensors needs more than the offered keywords.

    A name that is nearly one of them is refused even with a default, which nothing would replace.
    """
    parameters = _parameters(inside(part))
    given = [name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY][:2]
    others = [name for name in parameters if name not in (*given, *offered)]
    needed = [name for name in others if parameters[name].default is inspect.Parameter.empty]
    named = f"the {kind} {optional(part, '__name__', type(inside(part)).__name__)}"
    if needed:
        raise ValueError(
            f"{named} needs {', '.join(needed)}, which nothing "
            f"gives it: beyond its two tensors a {kind} can name {', '.join(offered)}"
        )
    missing = [keyword for keyword in offered if keyword not in parameters]
    for name in others:
        for meant in get_close_matches(name, missing, 1, _ALIKE):
            raise ValueError(
                f"{named} names {name}, which nothing gives it: write {meant} if you mean that, "
                "or give it a name that is less like it"
            )


def _parameters(part: Callable[..., object]) -> dict[str, inspect.Parameter]:
    try:
        signature = inspect.signature(part.forward if isinstance(part, nn.Module) else part)
    except ValueError:  # a builtin tells nothing
        return {}
    return {name: p for name, p in signature.parameters.items() if p.kind in _NAMED}

"""One rule for what a loss or fusion needs beyond its tensors: what it names, it gets."""

import inspect
from collections.abc import Callable, Sequence

from torch import nn

from fusecomp.types import NamesKeywords

_NAMED = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def taken_keywords(part: Callable[..., object], offered: Sequence[str]) -> tuple[str, ...]:
    """Return those of the offered keywords that a callable names in its signature.

    ``**kwargs`` names nothing. Of a module, ``forward`` counts; of a part made of others, such as
    ``CombinedLoss``, what these name (see ``types.NamesKeywords``).
    """
    if isinstance(part, nn.Module):
        part = part._modules.get("_orig_mod") or part  # inside of torch.compile
    if isinstance(part, NamesKeywords):
        named = set(part.named_keywords)
    else:
        named = _in_signature(part.forward if isinstance(part, nn.Module) else part)
    return tuple(keyword for keyword in offered if keyword in named)


def _in_signature(function: Callable[..., object]) -> set[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin tells nothing
        return set()
    return {parameter.name for parameter in parameters if parameter.kind in _NAMED}

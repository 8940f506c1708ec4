"""One rule for what a loss or fusion needs beyond its tensors: what it names, it gets."""

import inspect
from collections.abc import Callable, Sequence

from torch import nn

from fusecomp.types import NamesKeywords

_NAMED = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def taken_keywords(part: Callable[..., object], offered: Sequence[str]) -> tuple[str, ...]:
    """Return those of the offered keywords that a callable names in its signature.

    ``**kwargs`` names nothing. A module is asked for ``forward``, a part made of others for theirs.
    """
    if isinstance(part, nn.Module):
        part = part._modules.get("_orig_mod") or part  # inside of torch.compile
    if isinstance(part, NamesKeywords):
        named = set(part.named_keywords)
    else:
        function = part.forward if isinstance(part, nn.Module) else part
        try:
            parameters = inspect.signature(function).parameters.values()
        except ValueError:  # a builtin tells nothing
            return ()
        named = {parameter.name for parameter in parameters if parameter.kind in _NAMED}
    return tuple(keyword for keyword in offered if keyword in named)

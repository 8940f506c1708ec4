"""Names that are imported when somebody asks for them, so that ``import fusecomp`` stays quick."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazily"]


def lazily(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package some of whose names come from a file only when used.

    Args:
        package: its ``__name__``.
        places: name -> the module that has it.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(places[name]), name)

    # What completes names in a terminal or a notebook asks for this list.
    module: Any = sys.modules[package]
    module.__dir__ = lambda: sorted({*vars(module), *places})
    return get

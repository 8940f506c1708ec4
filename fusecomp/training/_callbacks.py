from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from fusecomp._core.checks import shown

__all__ = ["Callbacks"]

HOOKS = ("on_start", "on_step", "on_epoch", "on_evaluation", "on_checkpoint", "on_end")


class Callbacks:
    """Calls the hooks that each object has; ``Trainer`` lists them.

    Raises:
        TypeError: if these are no objects in an order, if one has no hook, an attribute that looks
            like one and is none, or is a class.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        if not isinstance(callbacks, Iterable) or isinstance(callbacks, str | Set | Mapping):
            raise TypeError(
                f"callbacks must be a list of objects with hooks, got {type(callbacks).__name__}"
            )
        self._callbacks = tuple(callbacks)
        for callback in self._callbacks:
            if isinstance(callback, type):
                raise TypeError(f"callback {callback.__name__} is a class: pass an instance of it")
            named = [name for name in dir(callback) if name.startswith("on_")]
            if unknown := [name for name in named if name not in HOOKS]:
                raise TypeError(
                    f"callback {type(callback).__name__} has unknown hooks {unknown}; "
                    f"valid: {', '.join(HOOKS)}"
                )
            if wrong := [name for name in named if not callable(getattr(callback, name))]:
                raise TypeError(
                    f"callback {type(callback).__name__}: {wrong[0]} must be a method, got "
                    f"{shown(getattr(callback, wrong[0]))}"
                )
            if not named:
                raise TypeError(
                    f"callback {type(callback).__name__} has no hook; valid: {', '.join(HOOKS)}"
                )

    @property
    def show_progress(self) -> bool:
        """Whether one of them does, so that nothing else needs to."""
        return any(getattr(callback, "shows_progress", False) for callback in self._callbacks)

    def call(self, hook: str, *arguments: Any) -> None:
        """Call one hook of all that have it, in order."""
        for callback in self._callbacks:
            function = getattr(callback, hook, None)
            if function is not None:
                function(*arguments)

    def states(self) -> list[Any]:
        """What each callback wants to have kept in the checkpoint."""
        return [c.state_dict() if hasattr(c, "state_dict") else None for c in self._callbacks]

    def check(self, path: Path, states: Any) -> None:
        """Raise ValueError unless a checkpoint has a state for each callback."""
        if not isinstance(states, list) or len(states) != len(self._callbacks):
            found = len(states) if isinstance(states, list) else repr(states)
            raise ValueError(
                f"{path} was written with {found} callbacks, now there are "
                f"{len(self._callbacks)}: give the same ones, or another workdir"
            )

    def restore(self, states: Sequence[Any]) -> None:
        """Give the states back, after ``check``."""
        for callback, state in zip(self._callbacks, states, strict=True):
            if hasattr(callback, "load_state_dict"):
                callback.load_state_dict(state)

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Protocol, runtime_checkable

from fusecomp._core.checks import shown

HOOKS = ("on_start", "on_step", "on_epoch", "on_evaluation", "on_checkpoint", "on_end")


@runtime_checkable
class _Stateful(Protocol):
    def state_dict(self) -> object: ...

    def load_state_dict(self, state: object, /) -> object: ...


class Callbacks:
    """Calls the hooks that each object has; ``Trainer`` lists them."""

    def __init__(self, callbacks: Iterable[object]) -> None:
        if not isinstance(callbacks, Iterable) or isinstance(callbacks, str | Set | Mapping):
            raise TypeError(
                f"callbacks must be a list of objects with hooks, got {type(callbacks).__name__}"
            )
        self._callbacks = tuple(callbacks)
        found = [_hooks_of(callback) for callback in self._callbacks]
        self._hooks = {name: [hooks[name] for hooks in found if name in hooks] for name in HOOKS}
        # Whether one of them shows progress, so that nothing else needs to.
        self.show_progress = any(getattr(c, "shows_progress", False) for c in self._callbacks)

    def call(self, hook: str, *arguments: object) -> None:
        """Call one hook of all that have it, in order."""
        for function in self._hooks[hook]:
            function(*arguments)

    def states(self) -> list[object]:
        """Return what each callback keeps in the checkpoint."""
        return [c.state_dict() if isinstance(c, _Stateful) else None for c in self._callbacks]

    def check(self, path: Path, states: object) -> None:
        """Raise ValueError unless a checkpoint has a state for each callback."""
        if not isinstance(states, list) or len(states) != len(self._callbacks):
            found = len(states) if isinstance(states, list) else repr(states)
            raise ValueError(
                f"{path} was written with {found} callbacks, now there are "
                f"{len(self._callbacks)}: give the same ones, or another workdir"
            )

    def restore(self, states: Sequence[object]) -> None:
        """Give the states back, after ``check``."""
        for callback, state in zip(self._callbacks, states, strict=True):
            if isinstance(callback, _Stateful):
                callback.load_state_dict(state)


def _hooks_of(callback: object) -> dict[str, Callable[..., object]]:
    if isinstance(callback, type):
        raise TypeError(f"callback {callback.__name__} is a class: pass an instance of it")
    kind = f"callback {type(callback).__name__}"
    hooks = {name: getattr(callback, name) for name in dir(callback) if name.startswith("on_")}
    if unknown := [name for name in hooks if name not in HOOKS]:
        raise TypeError(f"{kind} has unknown hooks {unknown}; valid: {', '.join(HOOKS)}")
    for name, hook in hooks.items():
        if not callable(hook):
            raise TypeError(f"{kind}: {name} must be a method, got {shown(hook)}")
    if not hooks:
        raise TypeError(f"{kind} has no hook; valid: {', '.join(HOOKS)}")
    return hooks

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["one_at_a_time"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
# Not an attribute of an encoder: locks can be neither copied nor pickled.
_LOCK = threading.RLock()


def one_at_a_time(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function that uses a tokenizer, which only one thread is in at a time.

    Tokenizers of transformers keep padding and truncation of the last call, in which another
    thread's call would find them.
    """

    @functools.wraps(function)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _LOCK:
            return function(*args, **kwargs)

    return guarded

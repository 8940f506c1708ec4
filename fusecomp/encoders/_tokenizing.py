"""Texts on their way to a tokenizer: checked, one thread at a time, cut with a warning."""

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fusecomp._core.checks import has_half_character, shown, strings

# Not an attribute of an encoder: locks can be neither copied nor pickled.
_LOCK = threading.RLock()


@contextmanager
def tokenizing() -> Iterator[None]:
    """Wait until no other thread uses a tokenizer: some keep the padding of their last call."""
    with _LOCK:
        yield


class TruncationWarning:
    """Warns once, however often it is called, of texts that a tokenizer has cut."""

    def __init__(self) -> None:
        self._given = False

    def __call__(self, texts: Sequence[str]) -> None:
        """Warn, if there are such texts, and name the longest one."""
        if self._given or not texts:
            return
        self._given = True
        longest = max(texts, key=len)
        start = f"{longest[:80]!r}{'...' if len(longest) > 80 else ''}"
        problem = f"texts longer than the context of the model are cut, for example {start}"
        warnings.warn(problem, stacklevel=4)


def list_of_texts(texts: object) -> list[str]:
    """Return texts as a list of strings; ValueError on others, none, or half of a character."""
    if isinstance(texts, str):
        given = shown(texts)
        raise ValueError(
            f"texts must be a list of strings, got the string {given}; write [{given}]"
        )
    rows = strings("texts", texts)
    if not rows:
        raise ValueError('texts must hold at least one string, as ["is red"], got none')
    for position, text in enumerate(rows):
        if not text.isascii() and has_half_character(text):
            raise ValueError(
                f"texts[{position}] holds half of a character, such as of an emoji: {text!a:.80}"
            )
    return rows

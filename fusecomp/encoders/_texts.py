from collections.abc import Mapping, Set
from typing import Any

__all__ = ["list_of_texts"]


def list_of_texts(texts: Any) -> list[str]:
    """Return the texts that an encoder was given as a list of strings.

    A plain string is refused: it would be taken apart into letters.

    Raises:
        TypeError: if they are no list of strings.
        ValueError: if the list is empty.
    """
    if isinstance(texts, str | bytes):
        raise TypeError(f'texts must be a list of strings, got {_short(texts)}; write ["..."]')
    try:
        rows = None if isinstance(texts, Set | Mapping) else list(texts)
    except TypeError:  # not iterable
        rows = None
    if rows is None:
        raise TypeError(f'texts must be a list of strings, as ["..."], got {_short(texts)}')
    if not rows:
        raise ValueError("texts must hold at least one string, got none")
    for place, text in enumerate(rows):
        if not isinstance(text, str):
            raise TypeError(f"texts must hold strings alone, but texts[{place}] is {_short(text)}")
    return rows


def _short(value: Any) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 60 else f'{shown[:60]}...'}"

from typing import Any

from fusecomp._core.checks import has_half_character, shown, strings

__all__ = ["list_of_texts"]


def list_of_texts(texts: Any) -> list[str]:
    """Return the texts that an encoder was given as a list of strings.

    Raises:
        ValueError: if they are no list of strings, such as a plain string, which would be taken
            apart into letters, if there are none, or if one holds half of a character.
    """
    if isinstance(texts, str):
        given = shown(texts)
        raise ValueError(
            f"texts must be a list of strings, got the string {given}; write [{given}]"
        )
    rows = strings("texts", texts)
    if not rows:
        raise ValueError('texts must hold at least one string, as ["is red"], got none')
    for place, text in enumerate(rows):
        if not text.isascii() and has_half_character(text):
            raise ValueError(
                f"texts[{place}] holds half of a character, such as of an emoji: {text!a:.80}"
            )
    return rows

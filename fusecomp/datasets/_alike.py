"""Cells that are not what they look like: alike names, printed lists, printed missing values."""

import ast
import re
import warnings
from collections.abc import Iterable
from functools import lru_cache
from unicodedata import category, normalize

from fusecomp._core.checks import has_half_character
from fusecomp.datasets._entries import warn_of

# How a printed list begins and ends, also within a call, as in array(['a'], dtype=object).
_BRACKETED = re.compile(r"([A-Za-z_][\w.]*\(|[\[{(]).*[\]})]", re.DOTALL)
# A string; the beginning of a call; a keyword of a call, or what is printed bare for a value that
# is missing or, in a long array, left out.
_TOKEN = re.compile(
    r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|([A-Za-z_][\w.]*\()"""
    r"""|\b\w+=(?:[\w.]+|'[^']*')|\b(?:nan|NaN|NaT|None|null)\b|<NA>|\.\.\.""",
    re.DOTALL,
)
_CLOSING = (")", "]", "}")
_EMPTY = ("set()", "frozenset()", "OrderedDict()")
# As they print a value that is not there; "none" and "n/a" are captions of FashionIQ.
MISSING_WORDS = frozenset(("nan", "NaN", "NaT", "None", "null", "<NA>"))


@lru_cache
def folded(name: str) -> str:
    """Return the name without what a reader does not see: case, blanks, the form of letters."""
    letters = normalize("NFKC", normalize("NFKC", name).casefold())
    return "".join(c for c in letters if not c.isspace() and category(c) != "Cf")


def is_blank(text: str) -> bool:
    """Return whether a reader sees nothing of a text: blanks, or characters without width."""
    if text.isascii():
        return not text.strip()
    return all(c.isspace() or category(c) == "Cf" for c in text)


def is_missing_word(text: str) -> bool:
    """Return whether a text is a word that programs print where a value is missing."""
    return text.strip() in MISSING_WORDS


def may_be_odd(text: str) -> bool:
    """Return whether ``require_text`` may refuse a text, by a quick look at its end."""
    return not text.isascii() or text.rstrip().endswith(_CLOSING)


def require_no_list(where: str, field: str, text: str, way_out: str) -> None:
    """Raise ValueError if a text is a list in the form in which programs print it."""
    if _is_printed_list(text.strip()):
        raise ValueError(f"{where}: {field} is a list that was printed, {text!r:.80}; {way_out}")


def require_text(where: str, field: str, text: str, way_out: str) -> None:
    """Raise ValueError if a text is a printed list, or holds half of a character."""
    require_no_list(where, field, text, way_out)
    if has_half_character(text):
        raise ValueError(
            f"{where}: {field} holds half of a character, such as of an emoji, {text!a:.80}; "
            "write all of it, or remove it"
        )


def _is_printed_list(text: str) -> bool:
    """Whether a whole text is one list, tuple, set or dict of strings, as programs print it."""
    if not text.endswith(_CLOSING):
        return False
    if not _BRACKETED.fullmatch(text) or text in _EMPTY:
        return text in _EMPTY
    literal = _TOKEN.sub(lambda found: found[1] or ("(" if found[2] else "''"), text)
    try:
        with warnings.catch_warnings(action="ignore"):  # of backslashes, for one
            # In a list of its own, as ("a"), ("b") is a tuple to Python too.
            value, *others = ast.literal_eval(f"[{literal}]")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return False
    # The arguments of a call are a tuple that nobody printed.
    is_call = text[0] not in "[{(" and isinstance(value, tuple)
    return not others and any(map(_holds_text, value if is_call else [value]))


def _holds_text(value: object) -> bool:
    """Whether this is a list or the like, empty or with a string in it."""
    if isinstance(value, dict):
        value = list(value.items())
    if not isinstance(value, list | tuple | set):
        return False
    return not value or any(isinstance(v, str | bytes) or _holds_text(v) for v in value)


def warn_of_missing_words(texts: Iterable[tuple[str, str]]) -> None:
    """Warn where texts, each with its place, are words such as "nan"."""
    warn_of(
        [f"{where} is {text!r}" for where, text in texts if is_missing_word(text)],
        ", as a missing value is printed, and is taken as it is written; there are {} such "
        "values: remove the rows, or leave the cells empty",
        stacklevel=4,
    )

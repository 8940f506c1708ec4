"""Cells that are not what they look like: alike names, printed lists, printed missing values."""

import re
import warnings
from collections.abc import Iterable
from functools import lru_cache
from unicodedata import category, normalize

__all__ = ["folded", "is_missing_word", "require_no_list", "warn_of_missing_words"]

# As Python and pandas print a list, a set or a tuple of strings.
_PRINTED_LIST = re.compile(r"""[\[{]\s*(['"].*['"],?)?\s*[\]}]|\(\s*['"].*['"],.*\)""", re.DOTALL)
# As they print a value that is not there; "none" and "n/a" are captions of FashionIQ.
_MISSING_WORDS = frozenset(("nan", "NaN", "NaT", "None", "null", "<NA>"))


@lru_cache
def folded(name: str) -> str:
    """The name without what a reader does not see: case, blanks, the form of letters."""
    letters = normalize("NFKC", normalize("NFKC", name).casefold())
    return "".join(c for c in letters if not c.isspace() and category(c) != "Cf")


def is_missing_word(text: str) -> bool:
    """Whether a text is a word that programs print where a value is missing."""
    return text.strip() in _MISSING_WORDS


def require_no_list(where: str, field: str, text: str, way_out: str) -> None:
    """Raise ValueError if a text is a list in the form in which programs print it."""
    if _PRINTED_LIST.fullmatch(text.strip()):
        raise ValueError(f"{where}: {field} is a list that was printed, {text!r:.80}; {way_out}")


def warn_of_missing_words(found: Iterable[tuple[str, str]]) -> None:
    """Warn if there are words such as "nan" where texts or ids belong.

    Args:
        found: where each of them is, and the word.
    """
    places = list(found)
    if places:
        where, word = places[0]
        warnings.warn(
            f"{where} is {word!r}, as a missing value is printed, and is taken as it is written; "
            f"there are {len(places):,} such values: remove the rows, or leave the cells empty",
            stacklevel=3,
        )

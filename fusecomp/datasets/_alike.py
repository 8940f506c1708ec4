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
# Strings, and what is printed bare for a value that is missing or, in a long array, left out.
_STRING_OR_GAP = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\b(?:nan|NaN|NaT|None|null)\b|<NA>|\.\.\.""", re.DOTALL
)
_EMPTY = ("()", "set()", "frozenset()", "OrderedDict()")
# As they print a value that is not there; "none" and "n/a" are captions of FashionIQ.
_MISSING_WORDS = frozenset(("nan", "NaN", "NaT", "None", "null", "<NA>"))


@lru_cache
def folded(name: str) -> str:
    """Return the name without what a reader does not see: case, blanks, the form of letters."""
    letters = normalize("NFKC", normalize("NFKC", name).casefold())
    return "".join(c for c in letters if not c.isspace() and category(c) != "Cf")


def is_blank(text: str) -> bool:
    """Return whether a reader sees nothing of a text: blanks, or characters without width."""
    return not (text.strip() if text.isascii() else folded(text))


def is_missing_word(text: str) -> bool:
    """Return whether a text is a word that programs print where a value is missing."""
    return text.strip() in _MISSING_WORDS


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
    if not _BRACKETED.fullmatch(text):
        return False
    node = _expression(text)
    # Also `("a"), ("b")` is a tuple to Python.
    if isinstance(node, ast.Tuple) and not isinstance(_expression(text[1:-1]), ast.Tuple):
        return text in _EMPTY
    return text in _EMPTY or (_is_container(node) and _is_literal(node))


def _expression(text: str) -> ast.AST | None:
    """The text read as Python, with an empty string for each gap; None where it is none."""
    filled = _STRING_OR_GAP.sub(lambda found: found[0] if found[0][0] in "'\"" else "''", text)
    try:
        with warnings.catch_warnings(action="ignore"):  # of backslashes, for one
            return ast.parse(filled, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_container(node: ast.AST | None) -> bool:
    """Whether this is a list or the like, empty or with a string in it, or a call with one."""
    if isinstance(node, ast.Call):
        return any(map(_is_container, (*node.args, *(k.value for k in node.keywords))))
    if not isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
        return False
    inside = list(ast.walk(node))
    strings = (
        n for n in inside if isinstance(n, ast.Constant) and isinstance(n.value, str | bytes)
    )
    return any(strings) or not any(isinstance(n, ast.expr) for n in inside[1:])


def _is_literal(node: ast.AST | None) -> bool:
    """Whether this is made of strings and numbers alone, also within calls, as np.str_('a')."""
    if isinstance(node, ast.Call):
        return all(map(_is_literal, node.args))
    if isinstance(node, ast.Dict):
        return all(map(_is_literal, (*node.keys, *node.values)))
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return all(map(_is_literal, node.elts))
    return isinstance(node, ast.Constant)


def warn_of_missing_words(found: Iterable[tuple[str, str]]) -> None:
    """Warn if words such as "nan" are where texts or ids belong: pairs of a place and a word."""
    warn_of(
        [f"{where} is {word!r}" for where, word in found],
        ", as a missing value is printed, and is taken as it is written; there are {} such "
        "values: remove the rows, or leave the cells empty",
        stacklevel=4,
    )

"""JSON as strictly as its standard, with errors that name file, line and field."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusecomp._core.files import open_atomic, open_regular, reading

# The text of a string, a bracket, or a number, true, false or null.
_TOKEN = re.compile(
    r'(?P<string>"[^"\\]*(?:\\.[^"\\]*)*")(?P<colon>\s*:)?|[\[{]|[\]}]|(?P<word>[^\s\[\]{}:,"]+)'
)
# Deeper than any file of ours; said of files that are too deep for Python's decoder.
_DEEP = 500


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, atomically. NaN is refused, as JSON has none."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with open_atomic(path) as file:
        # Names of files that are not UTF-8 get JSON's own escapes.
        file.write(text.encode(errors="backslashreplace"))


def read_json(path: Path) -> Any:
    """Read a JSON file as ``parse_json`` does."""
    with (
        reading(path, "file", "not readable", "fetch or write it again"),
        open_regular(path) as file,
    ):
        content = file.read()
    return parse_json(content, path)


def parse_json(text: str | bytes, where: object, line: int = 1) -> Any:
    """Read JSON as strictly as its standard; Python alone takes NaN and lets the last key win.

    ValueError names ``where`` (such as the file), the line, counted from ``line``, and the field.
    A byte order mark is read over.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        text = text.removeprefix("\ufeff")
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        problem = f"not UTF-8: {error.reason}"
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        problem = f"{error.msg}, column {error.colno}"
    except (ValueError, RecursionError):
        position, problem = _locate(str(text))
        line += str(text).count("\n", 0, position)
    raise ValueError(f"{where}, line {line}: not valid JSON ({problem}); correct it there")


def _object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key occurs twice")
    return fields


def _whole(digits: str) -> int:
    _finite(digits)
    return int(digits)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return value


def _locate(text: str) -> tuple[int, str]:
    """Return the place of what JSON does not have, and a sentence; all before is well formed."""
    # Of each open bracket, the keys so far; a list has none.
    levels: list[dict[str, None]] = []
    for token in _TOKEN.finditer(text):
        field = next((next(reversed(keys)) for keys in reversed(levels) if keys), None)
        inside = "" if field is None else f" in the field {field!r}"
        if token["colon"]:
            key = json.loads(token["string"])
            if key in levels[-1]:
                return token.start(), f"the field {key!r} occurs twice"
            levels[-1][key] = None
        elif token["word"] and token["word"] not in ("true", "false", "null"):
            number = token["word"]
            if not math.isfinite(float(number)):
                number = number if len(number) <= 20 else f"{number[:20]}..."
                return token.start(), f"{number} is no finite number{inside}"
        elif token[0] in "[{":
            levels.append({})
            if len(levels) > _DEEP:
                return token.start(), f"brackets are nested more than {_DEEP} deep{inside}"
        elif token[0] in "]}":
            levels.pop()
    return 0, "brackets are nested too deep"


def read_list(path: Path) -> list[Any]:
    """Read a JSON file that holds a list."""
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(f"{path} must hold a list, got a {type(content).__name__}")
    return content

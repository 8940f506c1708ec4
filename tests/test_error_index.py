"""docs/errors.md explains every message that the package raises, and none that it does not."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import fusecomp

ROOT = Path(fusecomp.__file__).parent
ROWS = re.findall(
    r"^\| `(.+?)` \| (.+) \| .* \|$", (ROOT.parent / "docs" / "errors.md").read_text(), re.MULTILINE
)
# What a message holds of its call.
VALUE = "\0"


def written(node: ast.expr) -> str:
    """The text of a message, with a placeholder for each value."""
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(parts):
            return "".join(map(written, parts))
        case ast.BinOp(left, ast.Add(), right):
            return written(left) + written(right)
        case _:
            return VALUE


def messages() -> Iterator[tuple[str, str]]:
    """Each message that is raised, with its place; not those that are little but variables."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = written(node.exc.args[0])
                if len(re.findall(r"\w+", text)) > 1:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def pattern(row: str) -> re.Pattern[str]:
    parts = (re.escape(part) for part in row.split("…"))
    return re.compile(".*".join(parts), re.DOTALL)


def test_every_message_is_explained() -> None:
    patterns = [pattern(row) for row, _ in ROWS]
    unknown = [m for m in messages() if not any(p.fullmatch(m[1]) for p in patterns)]
    assert not unknown


def test_every_row_is_of_a_message() -> None:
    texts = [text for _, text in messages()]
    # Problems are found by generators, and raised by a file that only knows the list.
    source = "\n".join(path.read_text() for path in ROOT.rglob("*.py"))
    for row, _ in ROWS:
        if not any(pattern(row).fullmatch(text) for text in texts):
            words = max(row.split("…"), key=len)
            assert words.strip(" :;,.()=") in source, row

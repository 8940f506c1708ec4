"""Measure the house: lines, files, dynamic attributes and types of ``fusecomp/``.

``python tests/helpers/house.py [--checkout PATH]`` prints the table of docs/design.md; of two
checkouts, one column each. Lines of code are those without docstrings, comments and blank lines.
"""

import argparse
import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings(node: ast.AST) -> Iterator[int]:
    """Yield the lines of all docstrings below a node."""
    for part in ast.walk(node):
        if isinstance(part, DOCUMENTED) and ast.get_docstring(part, clean=False) is not None:
            first = part.body[0]
            yield from range(first.lineno, (first.end_lineno or first.lineno) + 1)


def code_lines(source: str) -> int:
    """Count the lines that hold code."""
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            held |= set(range(token.start[0], token.end[0] + 1))
    return len(held - set(docstrings(ast.parse(source))))


def function_lengths(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of each function without its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            yield len(lines - set(docstrings(node)))


def measure(checkout: Path) -> dict[str, float]:
    """Return the rows of the table for the package of one checkout."""
    package = checkout / "fusecomp"
    sources = {path: path.read_text() for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(source) for path, source in sources.items()}
    lines = {path: len(source.splitlines()) for path, source in sources.items()}
    thousands = sum(map(code_lines, sources.values())) / 1000
    names = [n.id for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.Name)]
    dynamic = sum(name in ("getattr", "hasattr") for name in names)
    pictures = sum(text.count("picture") for text in sources.values())
    lengths = [length for tree in trees.values() for length in function_lengths(tree)]
    return {
        "lines of `fusecomp/`": sum(lines.values()),
        "lines of code": round(1000 * thousands),
        "single files at the top": len(list(package.glob("*.py"))),
        "`getattr` + `hasattr` a 1,000 lines of code": round(dynamic / thousands, 1),
        "`Any` a 1,000 lines of code": round(names.count("Any") / thousands, 1),
        "files above 350 lines": sum(count > 350 for count in lines.values()),
        "functions above 40 lines": sum(length > 40 for length in lengths),
        '"picture" in the package': pictures,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkout", type=Path, action="append", help="a checkout; may be repeated (this one)"
    )
    checkouts: list[Path] = parser.parse_args().checkout or [ROOT]
    columns = [measure(checkout) for checkout in checkouts]
    print("| what |" + "".join(f" {checkout.name} |" for checkout in checkouts))
    print("| --- |" + " ---: |" * len(columns))
    for name in columns[0]:
        print(f"| {name} |" + "".join(f" {column[name]:,} |" for column in columns))


if __name__ == "__main__":
    main()

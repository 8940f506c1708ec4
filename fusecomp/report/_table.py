import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Table", "short"]

_NUMBERS = re.compile(r"[-+0-9., \[\]]*")
# What ends a line, or cannot be printed; a row must be one line.
_BREAKS = re.compile(r"\s*[\x00-\x1f\x7f-\x9f\u2028\u2029]\s*")
_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Scores below each other: Markdown when printed, LaTeX, or plain values for JSON.

    Args:
        head: the names of the columns.
        rows: as many cells each.
        apart: rows of another protocol, each with what it differs in.
        notes: lines below the table; the protocol is one.
        content: what ``to_dict`` gives.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    content: Mapping[str, Any]
    apart: Sequence[tuple[Sequence[str], str]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Names, unrounded numbers and protocols, as values that JSON has."""
        return dict(self.content)

    def __str__(self) -> str:
        return "\n".join(self._markdown())

    def _markdown(self) -> Iterator[str]:
        yield from _markdown(self.head, self.rows)
        if self.apart:
            yield from ("", "Of another protocol, so that they do not compare:", "")
            rows = [(*cells, reason) for cells, reason in self.apart]
            yield from _markdown((*self.head, "differs in (here / above)"), rows)
        if self.notes:
            yield ""
            yield "  \n".join(self.notes)

    def latex(self) -> str:
        """A ``tabular`` with the rules of the LaTeX package booktabs; notes are comments."""
        return "\n".join(self._latex())

    def _latex(self) -> Iterator[str]:
        cells = [*self.rows, *(row for row, _ in self.apart)]
        sides = ["r" if numeric else "l" for numeric in _numeric(self.head, cells)]
        yield from (f"% {line}" for note in self.notes for line in note.splitlines())
        yield f"\\begin{{tabular}}{{{''.join(sides)}}}"
        yield from ("\\toprule", _latex_row(self.head), "\\midrule")
        yield from map(_latex_row, self.rows)
        if self.apart:
            yield from ("\\midrule", self._across("Of another protocol, not comparable:"))
        for row, reason in self.apart:
            yield from (_latex_row(row), self._across(f"\\quad differs in {_escaped(reason)}"))
        yield from ("\\bottomrule", "\\end{tabular}")

    def _across(self, text: str) -> str:
        return f"\\multicolumn{{{len(self.head)}}}{{l}}{{\\small {text}}} \\\\"


def short(metric: str) -> str:
    """The name of a metric as the head of a column."""
    return metric.replace("/", " ").replace("recall_subset@", "Rs@").replace("recall@", "R@")


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    cells = [[_in_markdown(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [">" if numeric else "<" for numeric in _numeric(head, rows)]
    lines = [
        "| " + " | ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)) + " |"
        for row in cells
    ]
    ends = (
        ("-" * (w + 1)) + (":" if s == ">" else "-") for s, w in zip(sides, widths, strict=True)
    )
    return iter([lines[0], f"|{'|'.join(ends)}|", *lines[1:]])


def _numeric(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold numbers only; these stand to the right."""
    return [
        all(_NUMBERS.fullmatch(row[column]) for row in rows) and column > 0
        for column in range(len(head))
    ]


def _in_markdown(cell: str) -> str:
    # A backslash of the cell's own would take the one before a pipe.
    return re.sub(r"[\\|]", r"\\\g<0>", _BREAKS.sub(" ", cell))


def _latex_row(cells: Sequence[str]) -> str:
    row = " & ".join(map(_escaped, cells)) + r" \\"
    # At the start of a row these two would belong to the line break before it.
    return "{}" + row if row.lstrip()[:1] in ("[", "*") else row


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(sign, sign) for sign in _BREAKS.sub(" ", text))

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        rows: one cell a column each.
        apart: rows of another protocol, each with the options that differ.
        notes: lines below the table; the protocol is one.
        content: what ``to_dict`` gives.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    content: Mapping[str, Any]
    apart: Sequence[tuple[Sequence[str], str]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return names, unrounded numbers and protocols, as values that JSON has."""
        return dict(self.content)

    def __str__(self) -> str:
        parts = [_markdown(self.head, self.rows)]
        if self.apart:
            parts.append("Of another protocol, so that they do not compare:")
            rows = [(*cells, reason) for cells, reason in self.apart]
            parts.append(_markdown((*self.head, "differs in (here / above)"), rows))
        if self.notes:
            parts.append("  \n".join(self.notes))
        return "\n\n".join(parts)

    def latex(self) -> str:
        """Return a ``tabular`` with the rules of the LaTeX package booktabs; notes are comments."""
        cells = [*self.rows, *(row for row, _ in self.apart)]
        sides = "".join("r" if numeric else "l" for numeric in _numeric(self.head, cells))
        lines = [f"% {line}" for note in self.notes for line in note.splitlines()]
        lines += [f"\\begin{{tabular}}{{{sides}}}", "\\toprule", _latex_row(self.head), "\\midrule"]
        lines += map(_latex_row, self.rows)
        if self.apart:
            lines += ["\\midrule", self._across("Of another protocol, not comparable:")]
        for row, reason in self.apart:
            lines += [_latex_row(row), self._across(f"\\quad differs in {_escaped(reason)}")]
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])

    def _across(self, text: str) -> str:
        return f"\\multicolumn{{{len(self.head)}}}{{l}}{{\\small {text}}} \\\\"


def short(metric: str) -> str:
    """Shorten the name of a metric for the head of a column."""
    return metric.replace("/", " ").replace("recall_subset@", "Rs@").replace("recall@", "R@")


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[_in_markdown(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    columns = list(zip(widths, _numeric(head, rows), strict=True))
    rule = "|".join("-" * (width + 1) + (":" if right else "-") for width, right in columns)
    specs = [f"{'>' if right else '<'}{width}" for width, right in columns]
    first, *others = (f"| {' | '.join(map(format, row, specs))} |" for row in cells)
    return "\n".join([first, f"|{rule}|", *others])


def _numeric(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Return which columns hold numbers only; these are aligned to the right."""
    return [
        all(_NUMBERS.fullmatch(row[column]) for row in rows) and column > 0
        for column in range(len(head))
    ]


def _in_markdown(cell: str) -> str:
    # A backslash in the cell would escape the one before a pipe.
    return re.sub(r"[\\|]", r"\\\g<0>", _BREAKS.sub(" ", cell))


def _latex_row(cells: Sequence[str]) -> str:
    row = " & ".join(map(_escaped, cells)) + r" \\"
    # At the start of a row these two would belong to the line break before it.
    return "{}" + row if row.lstrip()[:1] in ("[", "*") else row


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(sign, sign) for sign in _BREAKS.sub(" ", text))

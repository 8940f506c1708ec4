from collections.abc import Iterable, Sequence
from html import escape


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str]) -> str:
    """Return a table as a notebook shows it: names on the left, and notes below."""
    lines = [f"<tr><th>{'</th><th>'.join(map(escape, head))}</th></tr>"]
    for name, *cells in rows:
        values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th style="text-align: left">{escape(name)}</th>{values}</tr>')
    below = "<br>".join(map(escape, notes))
    return f"<table>{''.join(lines)}</table><p>{below}</p>"

from collections.abc import Mapping

from fusecomp.evaluation import Evaluation

__all__ = ["ablation_table"]


def ablation_table(rows: Mapping[str, Evaluation]) -> str:
    """Evaluations of one protocol below each other, as a Markdown table in per cent.

    Args:
        rows: name -> evaluation.

    Raises:
        ValueError: if there is no row, or protocols or metrics differ.
    """
    if not rows:
        raise ValueError("there is no evaluation to show")
    (first_name, first), *others = rows.items()
    for name, evaluation in others:
        if dict(evaluation.protocol) != dict(first.protocol) or list(evaluation) != list(first):
            raise ValueError(
                f"{first_name!r} ({dict(first.protocol)}) and {name!r} "
                f"({dict(evaluation.protocol)}) do not stand in one table"
            )
    cells = [["", *map(_short, first)]]
    cells += [[name, *(f"{value:.2f}" for value in e.values())] for name, e in rows.items()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        " | ".join(
            [f"| {row[0]:<{widths[0]}}"]
            + [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        + " |"
        for row in cells
    ]
    ruler = ["-" * (widths[0] + 2)] + ["-" * (width + 1) + ":" for width in widths[1:]]
    return "\n".join([lines[0], f"|{'|'.join(ruler)}|", *lines[1:]])


def _short(metric: str) -> str:
    return metric.replace("/", " ").replace("recall_subset@", "Rs@").replace("recall@", "R@")

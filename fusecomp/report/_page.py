import io
import json
import math
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fusecomp._core.checks import as_path, as_text, require, shown, whole_number
from fusecomp._core.files import open_atomic
from fusecomp.evaluation import Evaluation, TaskRanking
from fusecomp.images import require_pillow
from fusecomp.report._found import Found, Gates, checked_gates, what_it_found
from fusecomp.report._given import require_dataset
from fusecomp.report._page_template import PAGE
from fusecomp.report._thumbnail import thumbnail
from fusecomp.types import Dataset

__all__ = ["retrieval_page"]

_KINDS = {"random": "at random", "best": "best", "worst": "worst"}
# Twice what an image takes on the page would be sharper and four times as large.
_SIDE, _QUALITY = 144, 82


def retrieval_page(
    evaluation: Evaluation,
    dataset: Dataset,
    path: str | Path,
    *,
    title: str = "What the queries found",
    each: int = 12,
    top: int = 10,
    gates: Mapping[str, Gates] | None = None,
    seed: int = 0,
) -> None:
    """Write one HTML page of what queries found, to be filtered by how well and by category.

    The page holds its images and asks for nothing from outside, so it can be moved and mailed.
    It shows the scores with their protocol, and of each task the queries whose targets rank
    best and worst, and some at random: reference, text, the best results with rank and cosine, the
    target framed, or beside them if it is not among them. Filters stand in its address, as in
    ``page.html#show=worst&task=0``.

    Args:
        evaluation: whose queries are shown.
        dataset: knows where the images lie; what cannot be read is a grey box.
        path: the page, written atomically.
        title: its headline.
        each: how many queries a kind and task.
        top: results a query.
        gates: by task, of a fusion that has one, such as ``Combiner.gate``: a number for each
            query.
        seed: of the queries at random.

    Raises:
        ImportError: if Pillow is missing.
        TypeError: if an argument is something else, as when they are swapped.
        ValueError: if each or top are no whole numbers of at least 1 or seed none of at least 0,
            gates name no task or are not finite, or there are more or fewer than queries.
    """
    require("evaluation", evaluation, "ranking", "an Evaluation", "evaluation, dataset, path")
    require_dataset(dataset)
    as_text("title", title)
    path = as_path("path", path)
    each, top = whole_number("each", each, 1), whole_number("top", top, 1)
    seed = whole_number("seed", seed, 0, math.inf)
    gates = {} if gates is None else gates
    if not isinstance(gates, Mapping):
        raise TypeError(f"gates must map tasks to numbers, got {shown(gates)}")
    for task in gates:
        if task not in evaluation.ranking:
            tasks = ", ".join(map(repr, evaluation.ranking))
            raise ValueError(f"gates of {task!r}; the tasks are {tasks}")
    require_pillow()
    cards = list(_cards(evaluation, each, top, gates, seed))
    image_ids = dict.fromkeys(image_id for card in cards for image_id in _image_ids(card.found))
    images = {
        _in_utf8(image_id).decode(): _data_uri(dataset.path(image_id), image_id)
        for image_id in image_ids
    }
    names = [name or "all" for name in evaluation.ranking]
    text = PAGE.substitute(
        title=escape(title),
        scores=_scores(evaluation),
        kinds=_choices("show", _KINDS.items()),
        tasks=_choices("task", [("all", "all"), *((str(n), t) for n, t in enumerate(names))]),
        hidden=" hidden" if len(names) == 1 else "",
        articles="\n".join(map(_article, cards)),
        # What ends a script must not stand in it.
        images=json.dumps(images).replace("<", "\\u003c"),
    )
    with open_atomic(path) as file:
        file.write(_in_utf8(text))


class _Card(NamedTuple):
    """A query of a task, by its number, and why it is shown."""

    found: Found
    task: int
    kinds: Sequence[str]


def _cards(
    evaluation: Evaluation, each: int, top: int, gates: Mapping[str, Gates], seed: int
) -> Iterator[_Card]:
    for number, (name, ranking) in enumerate(evaluation.ranking.items()):
        numbers = checked_gates(ranking.task, gates.get(name))
        for position, kinds in _chosen(ranking, each, seed).items():
            yield _Card(what_it_found(ranking, position, top, numbers), number, kinds)


def _chosen(ranking: TaskRanking, each: int, seed: int) -> dict[int, list[str]]:
    """Positions of queries, best first, and why each is shown."""
    count, last = len(ranking.task.queries), len(ranking.task.gallery) + 1
    ranks = [-1] * count if ranking.ranks is None else ranking.ranks.tolist()
    order = sorted(range(count), key=lambda n: ranks[n] if ranks[n] > 0 else last)
    some = np.random.default_rng(seed).choice(count, size=min(each, count), replace=False).tolist()
    groups = {"random": set(some), "best": set(order[:each]), "worst": set(order[-each:])}
    kinds = {n: [kind for kind, group in groups.items() if n in group] for n in order}
    return {n: found for n, found in kinds.items() if found}


def _image_ids(found: Found) -> Iterator[str]:
    yield found.query.reference_id
    yield from (result.image_id for result in found.results)
    if found.query.target_id is not None:
        yield found.query.target_id


def _in_utf8(text: str) -> bytes:
    # A file name that is not UTF-8 holds what UTF-8 has no bytes for; it is spelled out.
    return text.encode(errors="backslashreplace")


def _data_uri(path: Path, image_id: str) -> str:
    buffer = io.BytesIO()
    thumbnail(path, image_id, _SIDE).save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"


def _scores(evaluation: Evaluation) -> str:
    """The table of metrics, with sizes and protocol below it."""
    head, *rows = evaluation.cells()
    lines = ["<table>", f"<thead>{_row(head, 'th')}</thead>", "<tbody>"]
    lines += [_row(row, "td") for row in rows]
    lines += ["</tbody>", "</table>"]
    lines += [f'<p class="faint">{escape(line)}</p>' for line in evaluation.ranking.summary()]
    return "\n".join(lines)


def _row(cells: Sequence[str], tag: str) -> str:
    first, *others = map(escape, cells)
    return f"<tr><th>{first}</th>{''.join(f'<{tag}>{cell}</{tag}>' for cell in others)}</tr>"


def _choices(name: str, options: Iterable[tuple[str, str]]) -> str:
    return "\n".join(
        f'<label><input type="radio" name="{name}" value="{value}"{"" if place else " checked"}>'
        f"<span>{escape(text)}</span></label>"
        for place, (value, text) in enumerate(options)
    )


def _article(card: _Card) -> str:
    found, query = card.found, card.found.query
    texts = "".join(f"<p>{escape(text)}</p>" for text in query.texts)
    hit = " found" if found.shows_target else ""
    rank = f'<p class="rank{hit}">{escape(found.target)}</p>' if found.target else ""
    results = [
        _figure(image_id, f"{place} · {score:.3f}", "target" if is_target else "")
        for place, score, image_id, is_target in found.results
    ]
    if query.target_id is not None and not found.shows_target:
        rank_text = f"target · {found.rank:,}" if found.rank and found.rank > 0 else "target"
        results.append(_figure(query.target_id, rank_text, "target beyond"))
    name = f'<p class="faint">{escape(query.query_id)}</p>'
    return (
        f'<article data-task="{card.task}" data-kinds="{" ".join(card.kinds)}">\n'
        f'<div class="query">{_figure(query.reference_id, "reference", "")}\n'
        f"<div>{texts}{rank}{_gate(found.gate)}{name}</div></div>\n"
        f'<div class="results">{"".join(results)}</div>\n</article>'
    )


def _gate(gate: float | None) -> str:
    if gate is None:
        return ""
    return f'<p class="faint">gate {gate:.2f} <meter value="{gate:.4f}"></meter></p>'


def _figure(image_id: str, caption: str, kind: str) -> str:
    name = escape(image_id)
    return (
        f'<figure class="{kind}"><img data-id="{name}" alt="{name}" title="{name}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )

import io
import math
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusecomp._core.checks import as_path, as_text, require, require_kind, shown, whole_number
from fusecomp._core.files import open_atomic
from fusecomp.evaluation import Evaluation, TaskRanking
from fusecomp.images import require_pillow
from fusecomp.report._query_results import (
    Gates,
    QueryResults,
    checked_gates,
    query_results,
    require_dataset,
    small_image,
)
from fusecomp.types import Dataset

if TYPE_CHECKING:
    from jinja2 import Template

# Twice what an image takes on the page would be sharper and four times as large.
_PIXELS, _QUALITY = 144, 82

# A query, the number of its task, and why it is shown.
_Card = tuple[QueryResults, int, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """Options of ``retrieval_page``.

    Args:
        title: the headline.
        each: number of queries of each kind (best, worst, at random) and task.
        top: number of results a query.
        seed: for the choice of the queries at random.

    Raises:
        TypeError: if the title is no string.
        ValueError: if each or top are no whole numbers of at least 1, or seed none of at least 0.

    Example:
        >>> PageOptions(title="Dresses", each=3)
        PageOptions(title='Dresses', each=3, top=10, seed=0)
    """

    title: str = "What the queries found"
    each: int = 12
    top: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        as_text("title", self.title)
        whole_number("each", self.each, 1)
        whole_number("top", self.top, 1)
        whole_number("seed", self.seed, 0, math.inf)


def retrieval_page(
    evaluation: Evaluation,
    dataset: Dataset,
    path: str | Path,
    options: PageOptions | None = None,
    *,
    gates: Mapping[str, Gates] | None = None,
) -> None:
    """Write an HTML page of queries and their results, with filters by rank and by category.

    The page holds its images and asks for nothing from outside, so it can be moved and mailed.
    It shows the scores with their protocol and, for each task, the queries whose targets rank
    best and worst, and some at random: reference, text, the best results with rank and score, and
    the target, framed as all right answers are. The address holds the filters, as in
    ``page.html#show=worst&task=0``.

    Args:
        evaluation: holds the queries and their results.
        dataset: knows where the images are; one that cannot be read is a grey box.
        path: the page, written atomically.
        options: which queries to show; None for the defaults of ``PageOptions``.
        gates: for each task one number a query, such as ``Combiner.gate``, printed below its text.

    Raises:
        ImportError: if jinja2 or Pillow is missing.
        TypeError: if an argument is something else, as when they are swapped.
        ValueError: if gates name no task, or are not one finite number a query.
    """
    require("evaluation", evaluation, "ranking", "an Evaluation", "evaluation, dataset, path")
    require_dataset(dataset)
    path = as_path("path", path)
    options = PageOptions() if options is None else options
    require_kind("options", options, PageOptions, "PageOptions")
    template = _template()
    cards = list(_cards(evaluation, options, gates))
    images = {image_id: _data_uri(dataset, image_id) for image_id in _image_ids(cards)}
    numbers = {image_id: number for number, image_id in enumerate(images)}
    text = template.render(
        title=options.title, evaluation=evaluation, cards=cards, images=images, numbers=numbers
    )
    with open_atomic(path) as file:
        # A file name that is not UTF-8 holds what UTF-8 has no bytes for; it is spelled out.
        file.write(text.encode(errors="backslashreplace"))


def _template() -> "Template":
    require_pillow()
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ImportError('the page needs jinja2: pip install "fusecomp[report]"') from error
    environment = Environment(
        loader=PackageLoader("fusecomp", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _cards(
    evaluation: Evaluation, options: PageOptions, gates: Mapping[str, Gates] | None
) -> Iterator[_Card]:
    gates = {} if gates is None else gates
    if not isinstance(gates, Mapping):
        raise TypeError(f"gates must map tasks to numbers, got {shown(gates)}")
    for task in gates:
        if task not in evaluation.ranking:
            tasks = ", ".join(map(repr, evaluation.ranking))
            raise ValueError(f"gates of {task!r}; the tasks are {tasks}")
    for number, (name, ranking) in enumerate(evaluation.ranking.items()):
        numbers = checked_gates(ranking.task, gates.get(name))
        for position, kinds in _chosen(ranking, options).items():
            yield query_results(ranking, position, options.top, numbers), number, kinds


def _chosen(ranking: TaskRanking, options: PageOptions) -> dict[int, list[str]]:
    """Choose positions of queries, best first, with the kinds that each is shown as."""
    each, count, last = options.each, len(ranking.task.queries), len(ranking.task.gallery) + 1
    ranks = [-1] * count if ranking.ranks is None else ranking.ranks.tolist()
    order = sorted(range(count), key=lambda n: ranks[n] if ranks[n] > 0 else last)
    some = np.random.default_rng(options.seed).choice(count, min(each, count), replace=False)
    groups = {"random": {*some.tolist()}, "best": {*order[:each]}, "worst": {*order[-each:]}}
    kinds = {n: [kind for kind, group in groups.items() if n in group] for n in order}
    return {n: found for n, found in kinds.items() if found}


def _image_ids(cards: Sequence[_Card]) -> Iterable[str]:
    queries = [found.query for found, _, _ in cards]
    results = [result.image_id for found, _, _ in cards for result in found.results]
    references, targets = [q.reference_id for q in queries], [q.target_id for q in queries]
    return dict.fromkeys([*references, *results, *filter(None, targets)])


def _data_uri(dataset: Dataset, image_id: str) -> str:
    """Return a small copy of an image as a data URI; empty if it cannot be read."""
    image, buffer = small_image(dataset, image_id, _PIXELS), io.BytesIO()
    if image is None:
        return ""
    image.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"

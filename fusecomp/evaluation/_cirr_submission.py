import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from fusecomp._core.checks import as_path, ordered, require
from fusecomp._core.files import open_atomic
from fusecomp.evaluation._ranking import Ranking
from fusecomp.types import Task, Triplet

__all__ = ["write_cirr_submission"]

_NAMES, _SUBSET_NAMES = 50, 3
# The server says 5 MB; this is the smaller reading of it.
_MOST_BYTES = 5_000_000


def write_cirr_submission(ranking: Ranking, folder: str | Path) -> tuple[Path, Path]:
    """Write the two files that CIRR's evaluation server scores, once both are checked.

    Args:
        ranking: ``fusecomp.rank(model, CIRR(root, "test1"))``, at least the 50 best of each query.
        folder: gets ``recall.json`` (50 names a pair) and ``recall_subset.json`` (3 names a pair).

    Returns:
        The paths of the two.

    Raises:
        TypeError: if there is no ranking, or folder is no path.
        ValueError: if the ranking is none of CIRR's kind or lacks queries, a pair id is no number,
            a pair has too few names, one twice, its own reference, or one that is
            not in the split or in the pair's group, or a file would be larger than the server
            takes (5 MB).
        OSError: if writing fails.
    """
    require("ranking", ranking, "tasks", "a Ranking", "ranking, folder")
    ordered("ranking.tasks", ranking.tasks, "rankings, as fusecomp.rank gives it")
    folder = as_path("folder", folder)
    if len(ranking.tasks) != 1:
        raise ValueError(f"the ranking has {len(ranking.tasks)} tasks, expected the one of CIRR")
    (found,) = ranking.tasks
    task, members = found.task, found.subset_ids()
    if task.subsets is None or members is None:
        raise ValueError(f"task {task.name!r} has no subsets; expected the ranking of a CIRR split")
    if task.missing_queries:
        raise ValueError(
            f"the ranking lacks {len(task.missing_queries)} pairs whose images are missing, the "
            f"first: {task.missing_queries[0]}; the server wants every pair"
        )
    for query in task.queries:
        if not (query.query_id.isascii() and query.query_id.isdecimal()):
            raise ValueError(f"query {query.query_id!r} is no pair id; CIRR's are whole numbers")
    split = frozenset(task.gallery)
    top = _chosen(task, found.top_ids(), [split] * len(task.queries), _NAMES)
    subset = _chosen(task, members, task.subsets, _SUBSET_NAMES)
    files = [
        (folder / f"{metric}.json", _encoded(metric, names))
        for metric, names in (("recall", top), ("recall_subset", subset))
    ]
    for path, content in files:
        if len(content) > _MOST_BYTES:
            raise ValueError(
                f"{path} would have {len(content):,} bytes, and the server takes {_MOST_BYTES:,}; "
                "the names of the images are too long"
            )
    for path, content in files:
        with open_atomic(path) as file:
            file.write(content)
    return files[0][0], files[1][0]


def _chosen(
    task: Task, ranked: Sequence[Sequence[str]], allowed: Sequence[Collection[str]], count: int
) -> dict[str, list[str]]:
    """The first names of each pair, by pair id."""
    if len(ranked) != len(task.queries):
        raise ValueError(f"the ranking has {len(ranked)} rows for {len(task.queries)} pairs")
    chosen = {}
    for query, ids, known in zip(task.queries, ranked, allowed, strict=True):
        names = list(ids[:count])
        if len(names) < count:
            way = (
                f"call rank(model, dataset, k={_NAMES})"
                if len(known) > count
                else f"there are {len(known)} images to choose from"
            )
            raise ValueError(
                f"pair {query.query_id} has {len(names)} names and the server wants {count}; {way}"
            )
        for problem in _problems(query, names, known):
            raise ValueError(f"pair {query.query_id}: {problem}")
        chosen[query.query_id] = names
    return chosen


def _problems(query: Triplet, names: Sequence[str], known: Collection[str]) -> Iterable[str]:
    if len(set(names)) < len(names):
        yield "its ranking names an image twice"
    if query.reference_id in names:
        yield f"its ranking names its own reference {query.reference_id!r}"
    for name in names:
        if name not in known:
            yield f"its ranking names {name!r}, none of the {len(known)} images to choose from"


def _encoded(metric: str, names: Mapping[str, Sequence[str]]) -> bytes:
    content = {"version": "rc2", "metric": metric, **names}
    return json.dumps(content, separators=(",", ":")).encode()

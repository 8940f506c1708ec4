import json
from collections.abc import Collection, Sequence
from pathlib import Path

from fusecomp._core.checks import as_path, ordered, require
from fusecomp._core.files import open_atomic
from fusecomp.evaluation._rank import Ranking
from fusecomp.types import Task

_NAMES, _SUBSET_NAMES = 50, 3
# The server says 5 MB; this is the smaller reading of it.
_MAX_BYTES = 5_000_000


def write_cirr_submission(ranking: Ranking, folder: str | Path) -> tuple[Path, Path]:
    """Write the two files that CIRR's evaluation server scores, once both are checked.

    Args:
        ranking: ``fusecomp.rank(model, CIRR(root, "test1"))``, at least the 50 best of each query.
        folder: gets ``recall.json`` (50 names a pair) and ``recall_subset.json`` (3 names a pair).

    Returns:
        The paths of the two files.

    Raises:
        TypeError: if there is no ranking, or folder is no path.
        ValueError: if the server would refuse a file: the ranking is not of CIRR's kind, lacks
            pairs or names, or has names that a pair must not find.
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
    files = []
    for metric, names in (("recall", top), ("recall_subset", subset)):
        fields = {"version": "rc2", "metric": metric, **names}
        content = json.dumps(fields, separators=(",", ":")).encode()
        path = folder / f"{metric}.json"
        files.append((path, content))
        if len(content) > _MAX_BYTES:
            raise ValueError(
                f"{path} would have {len(content):,} bytes, and the server takes {_MAX_BYTES:,}; "
                "the names of the images are too long"
            )
    for path, content in files:
        with open_atomic(path) as file:
            file.write(content)
    return files[0][0], files[1][0]


def _chosen(
    task: Task, ranked: Sequence[Sequence[str]], allowed: Sequence[Collection[str]], count: int
) -> dict[str, list[str]]:
    """Return the first names of each pair, by pair id."""
    if len(ranked) != len(task.queries):
        raise ValueError(f"the ranking has {len(ranked)} rows for {len(task.queries)} pairs")
    chosen = {}
    for query, ids, known in zip(task.queries, ranked, allowed, strict=True):
        names = list(ids[:count])
        if len(names) < count:
            way = f"there are {len(known)} images to choose from"
            if len(known) > count:
                way = f"call rank(model, dataset, k={_NAMES})"
            raise ValueError(
                f"pair {query.query_id} has {len(names)} names and the server wants {count}; {way}"
            )
        problem = ""
        if len(set(names)) < len(names):
            problem = "an image twice"
        elif query.reference_id in names:
            problem = f"its own reference {query.reference_id!r}"
        elif strange := [name for name in names if name not in known]:
            problem = f"{strange[0]!r}, none of the {len(known)} images to choose from"
        if problem:
            raise ValueError(f"pair {query.query_id}: its ranking names {problem}")
        chosen[query.query_id] = names
    return chosen

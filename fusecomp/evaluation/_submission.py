"""Files for the servers that know hidden targets: what those of all datasets share."""

from collections.abc import Collection, Sequence

from fusecomp._core.checks import ordered, require
from fusecomp.evaluation._rank import Ranking
from fusecomp.types import Task, TaskRanking


def only_task(ranking: Ranking, dataset: str, order: str) -> TaskRanking:
    """Return the one task of a ranking; ``order`` is that of the caller's arguments."""
    require("ranking", ranking, "tasks", "a Ranking", order)
    ordered("ranking.tasks", ranking.tasks, "rankings, as fusecomp.rank gives it")
    if len(ranking.tasks) != 1:
        raise ValueError(
            f"the ranking has {len(ranking.tasks)} tasks, expected the one of {dataset}"
        )
    (found,) = ranking.tasks
    return found


def require_queries(task: Task, kinds: str, problem: str) -> None:
    """Raise ValueError unless a task has every query, each with a whole number as its id."""
    if task.missing_queries:
        raise ValueError(
            f"the ranking lacks {len(task.missing_queries)} {kinds} whose images are missing, the "
            f"first: {task.missing_queries[0]}; the server wants every one"
        )
    for query in task.queries:
        if not (query.query_id.isascii() and query.query_id.isdecimal()):
            raise ValueError(f"query {query.query_id!r} {problem}")


def first_names(
    task: Task,
    ranked: Sequence[Sequence[str]],
    allowed: Sequence[Collection[str]],
    counts: tuple[int, int],
    kind: str,
    *,
    reference: bool,
) -> dict[str, list[str]]:
    """Return the first names of each query, by its id.

    ``counts`` are the names that the server wants and the k to call ``rank`` with; ``kind`` is the
    dataset's word for a query; ``reference`` says whether a query may find its own.
    """
    if len(ranked) != len(task.queries):
        raise ValueError(f"the ranking has {len(ranked)} rows for {len(task.queries)} {kind}s")
    count, k = counts
    chosen = {}
    for query, ids, known in zip(task.queries, ranked, allowed, strict=True):
        names = list(ids[:count])
        if len(names) < count:
            way = f"there are {len(known)} images to choose from"
            if len(known) > count:
                way = f"call rank(model, dataset, k={k})"
            raise ValueError(
                f"{kind} {query.query_id} has {len(names)} names and the server wants {count}; "
                f"{way}"
            )
        problem = ""
        if len(set(names)) < len(names):
            problem = "an image twice"
        elif not reference and query.reference_id in names:
            problem = f"its own reference {query.reference_id!r}"
        elif strange := [name for name in names if name not in known]:
            problem = f"{strange[0]!r}, none of the {len(known)} images to choose from"
        if problem:
            raise ValueError(f"{kind} {query.query_id}: its ranking names {problem}")
        chosen[query.query_id] = names
    return chosen

import json
from pathlib import Path

from fusecomp._core.checks import as_path
from fusecomp._core.files import open_atomic
from fusecomp.evaluation._rank import Ranking
from fusecomp.evaluation._submission import first_names, only_task, require_queries

_NAMES = 50


def write_circo_submission(ranking: Ranking, path: str | Path) -> Path:
    """Write the file that CIRCO's evaluation server scores, once it is checked.

    Args:
        ranking: ``fusecomp.rank(model, CIRCO(root, "test"))``, at least the 50 best of each query.
        path: the file, such as ``submission.json``: the 50 image ids of each query by its id.

    Returns:
        The path.

    Raises:
        TypeError: if there is no ranking, or path is no path.
        ValueError: if the server would refuse the file: the ranking is not of CIRCO's kind, or
            lacks queries or images.
        OSError: if writing fails.
    """
    found = only_task(ranking, "CIRCO", "ranking, path")
    path = as_path("path", path)
    task, expected = found.task, "expected the ranking of a CIRCO split"
    require_queries(task, "queries", f"has no number for its id; {expected}")
    numbers = sorted(int(query.query_id) for query in task.queries)
    if numbers != list(range(len(numbers))):
        raise ValueError(
            f"the queries are {len(numbers)}, from {numbers[0]} to {numbers[-1]}; the server wants "
            "each of a split, counted from 0"
        )
    for image_id in task.gallery:
        if not (image_id.isascii() and image_id.isdecimal()):
            raise ValueError(f"image {image_id!r} has no number for its id; {expected}")
    allowed = [frozenset(task.gallery)] * len(task.queries)
    names = first_names(task, found.top_ids(), allowed, (_NAMES, _NAMES), "query", reference=True)
    content = {query_id: [*map(int, ids)] for query_id, ids in names.items()}
    with open_atomic(path) as file:
        file.write(json.dumps(content, separators=(",", ":")).encode())
    return path

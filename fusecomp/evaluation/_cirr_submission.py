import json
from functools import partial
from pathlib import Path

from fusecomp._core.checks import as_path
from fusecomp._core.files import open_atomic
from fusecomp.evaluation._rank import Ranking
from fusecomp.evaluation._submission import first_names, only_task, require_queries

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
    found = only_task(ranking, "CIRR", "ranking, folder")
    folder = as_path("folder", folder)
    task, members = found.task, found.subset_ids()
    if task.subsets is None or members is None:
        raise ValueError(f"task {task.name!r} has no subsets; expected the ranking of a CIRR split")
    require_queries(task, "pairs", "is no pair id; CIRR's are whole numbers")
    split = [frozenset(task.gallery)] * len(task.queries)
    choose = partial(first_names, task, kind="pair", reference=False)
    top = choose(found.top_ids(), split, counts=(_NAMES, _NAMES))
    subset = choose(members, task.subsets, counts=(_SUBSET_NAMES, _NAMES))
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

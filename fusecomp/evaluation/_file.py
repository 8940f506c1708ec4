"""The file of an evaluation: a NumPy archive of plain arrays, without pickle.

``about`` holds names, texts and the protocol as JSON; task number n has ``n/indices``,
``n/scores``, ``n/ranks`` and, where it has subsets, ``n/subset_indices`` and ``n/subset_ranks``.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp.evaluation._ranking import Ranking, TaskRanking
from fusecomp.evaluation._tasks import check_tasks
from fusecomp.files import open_atomic, open_regular, parse_json, reading
from fusecomp.records import Task, Triplet

__all__ = ["read_ranking", "write_ranking"]

_FORMAT = "fusecomp.evaluation/1"
_ARRAYS = ("indices", "scores", "ranks", "subset_indices", "subset_ranks")

_Arrays = Mapping[str, NDArray[Any]]


def write_ranking(path: Path, ranking: Ranking) -> None:
    """Write the file atomically."""
    tasks = [_describe(found.task) for found in ranking.tasks]
    about = {"format": _FORMAT, "protocol": dict(ranking.protocol), "tasks": tasks}
    # In ASCII, which also holds file names that are not UTF-8.
    text = json.dumps(about).encode()
    arrays: dict[str, Any] = {
        f"{number}/{name}": _compact(getattr(found, name))
        for number, found in enumerate(ranking.tasks)
        for name in _ARRAYS
        if getattr(found, name) is not None
    }
    with open_atomic(path) as file:
        np.savez_compressed(file, about=np.frombuffer(text, np.uint8), **arrays)


def _compact(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.numpy()
    # Places in a gallery; half the file.
    return array.astype(np.int32) if array.dtype == np.int64 else array


def _describe(task: Task) -> dict[str, Any]:
    place = {image_id: index for index, image_id in enumerate(task.gallery)}

    def places(rows: Sequence[Sequence[str]] | None) -> list[list[int]] | None:
        return None if rows is None else [[place[image_id] for image_id in row] for row in rows]

    return {
        "name": task.name,
        "gallery": list(task.gallery),
        "queries": [[q.query_id, q.reference_id, q.texts, q.target_id] for q in task.queries],
        "groups": [query.group for query in task.queries],
        "exclude": places(task.exclude),
        "subsets": places(task.subsets),
        "ks": task.ks,
        "missing_queries": task.missing_queries,
        "missing_images": task.missing_images,
    }


def read_ranking(path: Path) -> Ranking:
    """Read the file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is torn, or no evaluation.
    """
    if path.is_dir():
        path = path / "evaluation.npz"
    if not path.is_file():
        others = sorted(str(other) for other in path.parent.glob("*.npz"))
        there = f"; there are {', '.join(others)}" if others else ""
        raise FileNotFoundError(f"no evaluation {path}; Evaluation.save writes one{there}")
    problem, way_out = "torn or no evaluation", "evaluate again and save it anew"
    # Opened here, as np.load leaves a file open that it cannot read.
    with reading(path, "evaluation", problem, way_out), open_regular(path) as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no archive of arrays")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return _ranking(arrays)


def _ranking(arrays: _Arrays) -> Ranking:
    about = parse_json(arrays["about"].tobytes(), "its description")
    if about["format"] != _FORMAT:
        raise ValueError(f"its format is {about['format']!r}, expected {_FORMAT!r}")
    tasks = [_task(description) for description in about["tasks"]]
    if not tasks:
        raise ValueError("it holds no task")
    check_tasks(tasks)
    protocol = {_string(name): _string(value) for name, value in about["protocol"].items()}
    found = [_task_ranking(task, arrays, number) for number, task in enumerate(tasks)]
    return Ranking(found, protocol)


def _task(description: Mapping[str, Any]) -> Task:
    gallery = _strings(description["gallery"])

    def at(place: int) -> str:
        if not 0 <= place < len(gallery):
            raise ValueError(f"place {place} lies outside its gallery of {len(gallery)}")
        return gallery[place]

    def named(rows: Any) -> list[tuple[str, ...]] | None:
        return None if rows is None else [tuple(map(at, row)) for row in rows]

    return Task(
        name=_string(description["name"]),
        queries=list(_queries(description["queries"], description["groups"])),
        gallery=gallery,
        exclude=named(description["exclude"]),
        subsets=named(description["subsets"]),
        ks=tuple(int(k) for k in description["ks"]),
        missing_queries=_strings(description["missing_queries"]),
        missing_images=_strings(description["missing_images"]),
    )


def _queries(rows: Any, groups: Any) -> Iterator[Triplet]:
    for (query_id, reference_id, texts, target_id), group in zip(rows, groups, strict=True):
        yield Triplet(
            _string(query_id),
            _string(reference_id),
            _strings(texts),
            None if target_id is None else _string(target_id),
            None if group is None else _strings(group),
        )


def _strings(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(_string, values))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no string")
    return value


def _task_ranking(task: Task, arrays: _Arrays, number: int) -> TaskRanking:
    read = {
        name: torch.from_numpy(arrays[f"{number}/{name}"])
        for name in _ARRAYS
        if f"{number}/{name}" in arrays
    }
    size = len(task.gallery)
    for name, tensor in read.items():
        ndim = 1 if name.endswith("ranks") else 2
        if len(tensor) != len(task.queries) or tensor.ndim != ndim:
            raise ValueError(
                f"{name} are {list(tensor.shape)} for {len(task.queries)} queries of {task.name!r}"
            )
        if name == "scores":
            continue
        # Ranks count from 1, places from 0.
        most = size if name.endswith("ranks") else size - 1
        if tensor.numel() and not (int(tensor.min()) >= -1 and int(tensor.max()) <= most):
            raise ValueError(f"{name} of task {task.name!r} point outside its gallery of {size}")
        read[name] = tensor.long()
    if read["scores"].shape != read["indices"].shape:
        raise ValueError(f"task {task.name!r} has other scores than indices")
    return TaskRanking(
        task,
        read["indices"],
        read["scores"],
        read.get("ranks"),
        read.get("subset_indices"),
        read.get("subset_ranks"),
    )

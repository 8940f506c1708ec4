"""The file of an evaluation: a NumPy archive of plain arrays, without pickle.

``about`` holds names, texts and the protocol as JSON; task number n has ``n/indices``,
``n/scores``, ``n/ranks`` and, where it has subsets, ``n/subset_indices`` and ``n/subset_ranks``.
``checksum`` is that of all the others.
"""

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.checksum import checksum
from fusecomp._core.files import open_atomic, open_regular, reading
from fusecomp._core.strict_json import parse_json
from fusecomp.evaluation._consistent import check_found
from fusecomp.evaluation._ranking import Ranking, TaskRanking
from fusecomp.evaluation._tasks import check_tasks
from fusecomp.types import Task, Triplet

__all__ = ["read_ranking", "write_ranking"]

_FORMAT = "fusecomp.evaluation/2"
_ARRAYS = ("indices", "scores", "ranks", "subset_indices", "subset_ranks")

# An evaluation shrinks to a third or so; what shrinks to less than this is made to fill memory.
_MOST_SHRUNK = 200

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
    arrays["about"] = np.frombuffer(text, np.uint8)
    with open_atomic(path) as file:
        np.savez_compressed(file, checksum=np.array(_checksum(arrays)), **arrays)


def _checksum(arrays: _Arrays) -> str:
    return checksum(dict(sorted(arrays.items())))


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
        OSError: if it cannot be opened.
        ValueError: if it is torn, changed or no evaluation, or one that refutes itself.
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
        unpacked = sum(part.file_size for part in zipfile.ZipFile(file).infolist())
        if unpacked > _MOST_SHRUNK * max(os.fstat(file.fileno()).st_size, 100_000):
            raise ValueError(f"it would fill {unpacked:,} bytes of memory")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return _ranking(dict(arrays))


def _ranking(arrays: dict[str, NDArray[Any]]) -> Ranking:
    about = parse_json(arrays["about"].tobytes(), "its description")
    if about["format"] != _FORMAT:
        raise ValueError(f"its format is {about['format']!r}, expected {_FORMAT!r}")
    if str(arrays.pop("checksum", "")) != _checksum(arrays):
        raise ValueError("its content is not that of its checksum")
    tasks = [_task(description) for description in about["tasks"]]
    if not tasks:
        raise ValueError("it holds no task")
    check_tasks(tasks)
    if len({(task.ks, task.subsets is None) for task in tasks}) > 1:
        raise ValueError("its tasks have different metrics")
    protocol = {_string(name): _string(value) for name, value in about["protocol"].items()}
    found = [_task_ranking(task, arrays, number) for number, task in enumerate(tasks)]
    return Ranking(found, protocol)


def _task(description: Mapping[str, Any]) -> Task:
    gallery = _strings(description["gallery"])

    def at(place: int) -> str:
        if type(place) is not int or not 0 <= place < len(gallery):
            raise ValueError(f"place {place} lies outside its gallery of {len(gallery)}")
        return gallery[place]

    def named(rows: Any) -> list[tuple[str, ...]] | None:
        return None if rows is None else [tuple(map(at, _list(row))) for row in _list(rows)]

    return Task(
        name=_string(description["name"]),
        queries=list(_queries(description["queries"], description["groups"])),
        gallery=gallery,
        exclude=named(description["exclude"]),
        subsets=named(description["subsets"]),
        ks=tuple(map(_whole, _list(description["ks"]))),
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


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.80} is no list")
    return value


def _strings(values: Any) -> tuple[str, ...]:
    return tuple(map(_string, _list(values)))


def _whole(value: Any) -> int:
    if type(value) is not int or value >= 2**31:
        raise ValueError(f"{value!r:.80} is no whole number below {2**31:,}, as each of ks must be")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is no string")
    return value


def _task_ranking(task: Task, arrays: _Arrays, number: int) -> TaskRanking:
    names = _ARRAYS if task.subsets is not None else _ARRAYS[:3]
    task.require_targets()
    if f"{number}/ranks" not in arrays:
        raise ValueError(f"task {task.name!r} has no targets' ranks")
    read = {name: torch.from_numpy(arrays[f"{number}/{name}"]) for name in names}
    for name, tensor in read.items():
        _check_array(task, name, tensor)
        read[name] = tensor if name == "scores" else tensor.long()
    if read["scores"].shape != read["indices"].shape:
        raise ValueError(f"task {task.name!r} has other scores than indices")
    found = TaskRanking(task, **read)
    check_found(found)
    return found


def _check_array(task: Task, name: str, tensor: Tensor) -> None:
    """Shape, kind and range."""
    ndim = 1 if name.endswith("ranks") else 2
    if len(tensor) != len(task.queries) or tensor.ndim != ndim:
        raise ValueError(
            f"{name} are {list(tensor.shape)} for {len(task.queries)} queries of {task.name!r}"
        )
    floating = name == "scores"
    if tensor.is_complex() or tensor.dtype == torch.bool or tensor.is_floating_point() != floating:
        raise ValueError(f"{name} of task {task.name!r} are {tensor.dtype}")
    # Ranks count from 1, places from 0.
    size = len(task.gallery)
    most = size if name.endswith("ranks") else size - 1
    if not floating and not (int(tensor.min()) >= -1 and int(tensor.max()) <= most):
        raise ValueError(f"{name} of task {task.name!r} point outside its gallery of {size}")

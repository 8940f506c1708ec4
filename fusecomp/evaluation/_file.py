"""The file of an evaluation: a NumPy archive of plain arrays, without pickle.

``about`` holds names, texts and the protocol as JSON, ``checksum`` is over all the others. Task n
has ``n/indices``, ``n/scores``, ``n/ranks`` and, if any, ``n/subset_indices``, ``n/subset_ranks``
and ``n/relevant_ranks``, its rows ``n/exclude``, ``n/subsets`` and ``n/relevant`` as positions in
its gallery, and the values ``n/metric0``, ... of each metric of a user (others follow from ranks).
"""

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.checks import strings
from fusecomp._core.files import checksum, is_workdir, open_atomic, open_regular, reading
from fusecomp._core.metrics import MEANS, Metric, metric_named
from fusecomp._core.strict_json import parse_json
from fusecomp.evaluation._rank import Ranking
from fusecomp.evaluation._tasks import padded_positions, require_same_metrics, task_positions
from fusecomp.types import Task, TaskRanking, Triplet

_FORMAT = "fusecomp.evaluation/4"
_RANKING = ("indices", "scores", "ranks")
_SUBSET_RANKING = ("subset_indices", "subset_ranks")
_RELEVANT_RANKING = ("relevant_ranks",)
_ROWS = ("exclude", "subsets", "relevant")

# Evaluations are not compressed, and shrank to a third or so when they were; what shrinks to less
# than this is made to fill memory.
_MAX_RATIO = 200


@dataclass(frozen=True, slots=True)
class _SavedMetric:
    """A user's own metric, whose values by query id were read from a file."""

    name: str
    values: Mapping[str, float] = field(repr=False)

    def __call__(self, ranking: TaskRanking, /) -> Tensor:
        values = [self.values[query.query_id] for query in ranking.task.queries]
        return torch.tensor(values, dtype=torch.float64)


def write_ranking(path: Path, ranking: Ranking) -> None:
    """Write the file atomically."""
    tasks = [_describe(found.task) for found in ranking.tasks]
    about = {"format": _FORMAT, "protocol": dict(ranking.protocol), "tasks": tasks}
    arrays: dict[str, Any] = {
        f"{number}/{name}": _compact(tensor)
        for number, found in enumerate(ranking.tasks)
        for name, tensor in _tensors(found)
        if tensor is not None
    }
    # In ASCII, which also holds file names that are not UTF-8.
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with open_atomic(path) as file:
        # Scores hardly shrink, and compressing takes several times as long as all the rest.
        np.savez(file, checksum=np.array(_checksum(arrays)), **arrays)


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> str:
    return checksum(dict(sorted(arrays.items())))


def _compact(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.numpy()
    if array.dtype != np.int64:
        return array
    # Positions in a gallery, which are a third of the file at least.
    return array.astype(np.int16 if array.max(initial=0) < 2**15 else np.int32)


def _tensors(found: TaskRanking) -> Iterator[tuple[str, Tensor | None]]:
    task = found.task
    yield from zip(_RANKING, (found.indices, found.scores, found.ranks), strict=True)
    yield from zip(_SUBSET_RANKING, (found.subset_indices, found.subset_ranks), strict=True)
    yield from zip(_RELEVANT_RANKING, (found.relevant_ranks,), strict=True)
    for name, rows in zip(_ROWS, (task.exclude, task.subsets, task.relevant), strict=True):
        yield name, None if rows is None else padded_positions(task, rows)
    foreign = [number for number, m in enumerate(task.metrics) if metric_named(m.name) != m]
    values = found.metric_values() if foreign else {}
    for number in foreign:
        yield f"metric{number}", values[task.metrics[number].name].double()


def _describe(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "gallery": task.gallery,
        "queries": [
            [q.query_id, q.reference_id, q.texts, q.target_id, q.group, q.other_target_ids]
            for q in task.queries
        ],
        "metrics": [metric.name for metric in task.metrics],
        "summaries": [[type(mean).__name__, mean.name, mean.metrics] for mean in task.summaries],
        "decides": task.decides,
        "missing_queries": task.missing_queries,
        "missing_images": task.missing_images,
    }


def read_ranking(path: Path) -> Ranking:
    """Read the file, or that of a folder; ValueError if it is torn, changed or refutes itself."""
    if path.is_dir():
        path = path / "evaluation.npz"
    if not path.is_file():
        others = sorted(str(other) for other in path.parent.glob("*.npz"))
        there = f"; there are {', '.join(others)}" if others else ""
        if is_workdir(path.parent):
            there += (
                f". {path.parent} is the workdir of a training, which keeps weights: the same fit "
                f"again gives its run, and evaluate(run.model, val_dataset).save({str(path)!r}) "
                "writes the evaluation"
            )
        raise FileNotFoundError(f"no evaluation {path}; Evaluation.save writes one{there}")
    problem, way_out = "torn or no evaluation", "evaluate again and save it anew"
    # Opened here, as np.load leaves a file open that it cannot read.
    with reading(path, "evaluation", problem, way_out), open_regular(path) as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no archive of arrays")
        unpacked = sum(part.file_size for part in zipfile.ZipFile(file).infolist())
        if unpacked > _MAX_RATIO * max(os.fstat(file.fileno()).st_size, 100_000):
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
    parts: list[dict[str, Tensor]] = [{} for _ in about["tasks"]]
    for name, array in arrays.items():
        number, slash, part = name.partition("/")
        if slash:
            parts[int(number)][part] = torch.from_numpy(array)
    found = [_read_task(*pair) for pair in zip(about["tasks"], parts, strict=True)]
    require_same_metrics([each.task for each in found])
    protocol = about["protocol"]
    strings("its protocol", list(protocol.values()))
    return Ranking(found, protocol)


def _read_task(description: Mapping[str, Any], parts: dict[str, Tensor]) -> TaskRanking:
    name, gallery = description["name"], description["gallery"]
    queries = [Triplet(*row) for row in description["queries"]]
    sizes = len(queries), len(gallery)
    parts = {part: _checked(part, name, tensor, *sizes) for part, tensor in parts.items()}
    task = Task(
        name=name,
        queries=queries,
        gallery=gallery,
        metrics=[
            _metric(metric, queries, parts.get(f"metric{number}"))
            for number, metric in enumerate(description["metrics"])
        ],
        summaries=[MEANS[kind](mean, names) for kind, mean, names in description["summaries"]],
        decides=description["decides"],
        missing_queries=description["missing_queries"],
        missing_images=description["missing_images"],
        **{
            part: [[gallery[i] for i in row if i >= 0] for row in parts[part].tolist()]
            for part in _ROWS
            if part in parts
        },
    )
    task.require_targets()
    if "ranks" not in parts:
        raise ValueError(f"task {name!r} has no targets' ranks")
    subset_parts = () if task.subsets is None else _SUBSET_RANKING
    relevant_parts = () if task.relevant is None else _RELEVANT_RANKING
    names = (*_RANKING, *subset_parts, *relevant_parts)
    found = TaskRanking(task, **{part: parts[part] for part in names})
    if found.scores.shape != found.indices.shape:
        raise ValueError(f"task {name!r} has other scores than indices")
    _check_found(found)
    return found


def _metric(name: str, queries: Sequence[Triplet], values: Tensor | None) -> Metric:
    if values is not None:
        ids = [query.query_id for query in queries]
        return _SavedMetric(name, dict(zip(ids, values.tolist(), strict=True)))
    metric = metric_named(name)
    if metric is None:
        raise ValueError(f"the metric {name!r} has no values")
    return metric


def _checked(part: str, task: str, tensor: Tensor, rows: int, size: int) -> Tensor:
    """Return a part of a task's ranking; ValueError on another shape, kind or range."""
    name = f"{part} of task {task!r}"
    values, ranks = part.startswith("metric"), part.endswith("ranks")
    one_each = values or (ranks and part not in _RELEVANT_RANKING)
    if len(tensor) != rows or tensor.ndim != (1 if one_each else 2) or not tensor.numel():
        raise ValueError(f"{name} are {list(tensor.shape)} for {rows} queries")
    floating = values or part == "scores"
    if tensor.is_complex() or tensor.dtype == torch.bool or tensor.is_floating_point() != floating:
        raise ValueError(f"{name} are {tensor.dtype}")
    if values and not tensor.isfinite().all():
        raise ValueError(f"{name} are not finite")
    if floating:
        return tensor
    # Ranks count from 1, positions from 0.
    if not (int(tensor.min()) >= -1 and int(tensor.max()) <= (size if ranks else size - 1)):
        raise ValueError(f"{name} point outside its gallery of {size}")
    return tensor.long()


def _check_found(found: TaskRanking) -> None:
    """Raise ValueError, naming task and query, where a ranking refutes itself."""
    name, scores = found.task.name, found.scores
    finite = scores.isfinite() & (found.indices >= 0)
    padding = (scores == -torch.inf) & (found.indices < 0)
    if not (finite | padding).all() or not (scores[:, 1:] <= scores[:, :-1]).all():
        raise ValueError(f"task {name!r} has scores that are not finite, or do not fall")
    for query, problem in chain(_problems(found), _relevant_problems(found)):
        raise ValueError(f"query {query.query_id!r} of task {name!r} has {problem}")


def _problems(found: TaskRanking) -> Iterator[tuple[Triplet, str]]:
    task, size = found.task, len(found.task.gallery)
    targets, exclude, subsets, _ = task_positions(task)
    parts = found.ranks, found.subset_ranks, found.indices, found.subset_indices, exclude, subsets
    # A list that a task does not have is padding alone.
    none = torch.full((len(targets), 1), -1)
    lists = [(none if part is None else part.view(len(targets), -1)).tolist() for part in parts]
    for query, target, (rank,), (subset_rank,), top, subset, excluded, members in zip(
        task.queries, targets.tolist(), *lists, strict=True
    ):
        out, left = {*excluded} - {-1}, size - len({*excluded} - {-1})
        inside = {*members} - {-1} - out
        if not _is_ranking(top, out):
            yield query, "indices that are there twice, are excluded, or come after padding"
        if sum(index >= 0 for index in top) != min(left, len(top)):
            yield query, "other indices than its gallery has left for it"
        if not _is_rank(rank, target, top, left):
            yield query, f"the rank {rank}, which its indices refute"
        if not _is_ranking(subset, out) or {*subset} - {-1} != inside:
            yield query, "subset indices that are not the members of its subset"
        first = [index for index in top if index in inside]
        if subset[: len(first)] != first:
            yield query, "subset indices in another order than its indices"
        if found.subset_ranks is not None and subset_rank != _rank_in(target, subset):
            yield query, f"the subset rank {subset_rank}, which its subset indices refute"


def _relevant_problems(found: TaskRanking) -> Iterator[tuple[Triplet, str]]:
    task, ranks = found.task, found.relevant_ranks
    positions, size = task_positions(task).relevant, len(task.gallery)
    if positions is None or ranks is None:
        return
    if ranks.shape != positions.shape or not ((positions >= 0) | (ranks == -1)).all():
        raise ValueError(f"task {task.name!r} has ranks of other images than its relevant ones")
    first = ranks[:, 0] if found.ranks is None else found.ranks
    lists = positions.tolist(), ranks.tolist(), first.tolist(), found.indices.tolist()
    for row, (query, answers, places, rank, top) in enumerate(
        zip(task.queries, *lists, strict=True)
    ):
        left = size - len({*task.exclude[row]} if task.exclude else ())
        known = [(p, a) for p, a in zip(places, answers, strict=True) if a >= 0]
        right = all(_is_rank(place, answer, top, left) for place, answer in known)
        if not right or len({*known}) < len(known) or places[0] != rank:
            yield query, f"the relevant ranks {places}, which its indices or its rank refute"


def _is_rank(rank: int, position: int, top: list[int], left: int) -> bool:
    """Whether an image may have a rank, by the first of those that are left for its query."""
    return rank == _rank_in(position, top) if position in top else len(top) < rank <= left


def _is_ranking(row: list[int], excluded: set[int]) -> bool:
    """Whether a row finds each image once, none that is excluded, before its padding."""
    found = [index for index in row if index >= 0]
    different = len({*found}) == len(found)
    return different and row[: len(found)] == found and excluded.isdisjoint(found)


def _rank_in(target: int, row: list[int]) -> int:
    return row.index(target) + 1 if target in row else -1

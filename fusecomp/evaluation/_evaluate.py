from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from torch import Tensor

from fusecomp._core.checks import as_path, require_both, shown, strings
from fusecomp._core.devices import inference
from fusecomp.evaluation._features import TaskFeatures
from fusecomp.evaluation._file import read_ranking, write_ranking
from fusecomp.evaluation._html_table import html_table
from fusecomp.evaluation._rank import Ranking, rank_features
from fusecomp.evaluation._tasks import (
    average_tasks,
    deciding_metric,
    mean_group,
    require_same_metrics,
    scored_tasks,
)
from fusecomp.model import ComposedEncoder
from fusecomp.types import Dataset

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation(Mapping[str, float]):
    """Metrics by name, in per cent; prints as a table, also at the prompt.

    Args:
        metrics: such as ``dress/recall@10``, ``mean/recall@10`` and ``mean``.
        ranking: the metrics were computed from it.
    """

    metrics: Mapping[str, float]
    ranking: Ranking

    @property
    def protocol(self) -> Mapping[str, str]:
        """The options of the dataset that make scores comparable or not."""
        return self.ranking.protocol

    @property
    def default_metric(self) -> str:
        """The name of the metric that picks the best weights by default (``Task.decides``)."""
        return deciding_metric([found.task for found in self.ranking.tasks])

    def select(self, query_ids: Collection[str]) -> Self:
        """Return the evaluation of some queries alone, such as those of one kind.

        Args:
            query_ids: ids of at least one query; tasks that have none of them are left out.

        Raises:
            ValueError: if there is no id, or no query of one.
        """
        wanted = dict.fromkeys(strings("query_ids", query_ids))
        chosen, found = [], set()
        for ranked in self.ranking.tasks:
            ids = [query.query_id for query in ranked.task.queries]
            if rows := [row for row, query_id in enumerate(ids) if query_id in wanted]:
                chosen.append(ranked.select(rows))
                found |= {ids[row] for row in rows}
        for query_id in wanted.keys() - found:
            raise ValueError(f"query_ids: there is no query {query_id!r} in {self.ranking!r}")
        ranking = replace(self.ranking, tasks=chosen)
        return type(self)(compute_metrics(ranking).metrics, ranking)

    def save(self, path: str | Path) -> None:
        """Write the ranking and the tasks atomically, without features.

        Args:
            path: a NumPy .npz file, by habit ``evaluation.npz`` in the folder of the run.

        Raises:
            OSError: if writing fails.
        """
        write_ranking(as_path("path", path), self.ranking)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file of ``save`` and compute the metrics again.

        Args:
            path: the file, or a folder that holds it as ``evaluation.npz``.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the file is torn or no evaluation.
        """
        ranking = read_ranking(as_path("path", path))
        return cls(compute_metrics(ranking).metrics, ranking)

    def __getitem__(self, name: str) -> float:
        if name not in self.metrics:
            raise KeyError(f"no metric {name!r}; there are {', '.join(self.metrics)}")
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def to_frame(self) -> "DataFrame":
        """Return the metrics as a pandas table, one row a task.

        Returns:
            A DataFrame with the index ``task`` and the columns ``queries``, ``gallery images`` and
            each metric, such as ``recall@10 (%)``. Means over several tasks are no rows.

        Raises:
            ImportError: if pandas is missing.
        """
        try:
            from pandas import DataFrame, Index
        except ImportError as error:
            raise ImportError('to_frame needs pandas: pip install "fusecomp[report]"') from error
        rows: dict[str, dict[str, float]] = {
            name: {"queries": len(found.task.queries), "gallery images": len(found.task.gallery)}
            for name, found in self.ranking.items()
        }
        for name, value in self.metrics.items():
            group, _, metric = name.rpartition("/")
            if group in rows:
                rows[group][f"{metric} (%)"] = value
        return DataFrame(list(rows.values()), index=Index(list(rows), name="task"))

    def cells(self) -> list[list[str]]:
        """Return the printed table: a head with the tasks, then one row a metric."""
        # Summaries of all tasks go into the column of their mean.
        rows: dict[str, dict[str, str]] = {}
        means = mean_group([found.task for found in self.ranking.tasks])
        for name, value in self.metrics.items():
            group, _, metric = name.rpartition("/")
            rows.setdefault(metric, {})[group or means] = f"{value:.2f}"
        groups = list(dict.fromkeys(group for row in rows.values() for group in row))
        return [["", *groups], *([n, *(row.get(g, "") for g in groups)] for n, row in rows.items())]

    def __str__(self) -> str:
        head, *rows = self.cells()
        names = max(len(name) for name, *_ in rows)
        widths = [max(6, len(group)) for group in head[1:]]
        lines = [
            f"{name:<{names}}"
            + "".join(f"  {v:>{width}}" for v, width in zip(values, widths, strict=True))
            for name, *values in ([head, *rows] if any(head) else rows)
        ]
        return "\n".join([*lines, *self.ranking.summary()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head, *rows = self.cells()
        return html_table(head, rows, self.ranking.summary())


def evaluate(
    model: ComposedEncoder,
    dataset: Dataset,
    *,
    num_workers: int | None = None,
    on_error: str = "raise",
) -> Evaluation:
    """Run the dataset's protocol and compute its metrics.

    Args:
        model: the encoder and fusion; used in evaluation mode.
        dataset: has known targets.
        num_workers: processes that load images; None chooses.
        on_error: ``"raise"`` stops at a missing or broken image, ``"skip"`` leaves out whatever
            needs it.

    Returns:
        Metrics in per cent: ``TASK/METRIC`` for each task and metric, such as ``dress/recall@10``,
        ``mean/METRIC`` over several tasks, which count alike, and summaries such as ``mean``.

    Raises:
        TypeError: if model or dataset is something else, as when they are swapped.
        ValueError: if targets are unknown (then use ``rank``), tasks have different metrics, or a
            feature or a metric's value is not finite.
        FileNotFoundError: if images are missing.
    """
    require_both(model, dataset)
    tasks = scored_tasks(dataset)  # raises before anything is encoded
    with inference(model):  # galleries and queries of the same weights, next to a training too
        features = TaskFeatures(model, dataset, tasks, num_workers=num_workers, on_error=on_error)
        ranking = rank_features(features)
    return compute_metrics(ranking)


def compute_metrics(ranking: Ranking) -> Evaluation:
    """Compute the metrics of a ranking.

    Raises:
        TypeError: if it is no ranking.
        ValueError: if there is no task, a task has no targets or one of its queries has none,
            tasks have different metrics, or a metric gives no finite value for each query.
    """
    if not isinstance(ranking, Ranking):
        raise TypeError(
            f"ranking must be a Ranking, as rank returns it, got {type(ranking).__name__}; an "
            "Evaluation holds one as .ranking"
        )
    tasks = [found.task for found in ranking.tasks]
    require_same_metrics(tasks)
    metrics: dict[str, dict[str, Tensor]] = {}
    for name, found in ranking.items():
        values = found.metric_values().items()
        metrics[name] = {metric: 100 * v.double().sum() / len(v) for metric, v in values}
    averaged = average_tasks(tasks, metrics)
    return Evaluation({name: float(value) for name, value in averaged.items()}, ranking)


def require_evaluation(name: str, value: object) -> None:
    """Raise TypeError unless this is an evaluation."""
    if not isinstance(value, Evaluation):
        raise TypeError(
            f"{name} must be an Evaluation, as evaluate returns it, got {shown(value)}; "
            "Evaluation.load(path) reads a saved one"
        )

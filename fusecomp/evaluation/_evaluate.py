from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fusecomp._core.checks import as_path, require_both, shown
from fusecomp.evaluation._metrics import average_tasks, headline_of, mean_group, metric_names
from fusecomp.evaluation._rank import rank
from fusecomp.evaluation._ranking import Ranking
from fusecomp.model import ComposedEncoder
from fusecomp.types import Dataset

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Evaluation", "compute_metrics", "evaluate", "require_evaluation"]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation(Mapping[str, float]):
    """Metrics by name, in per cent; prints as a table, also at the prompt.

    Args:
        metrics: such as ``dress/recall@10``, ``mean/recall@10`` and ``mean``.
        ranking: what they were computed from.
    """

    metrics: Mapping[str, float]
    ranking: Ranking

    @property
    def protocol(self) -> Mapping[str, str]:
        """The options of the dataset that make scores comparable or not."""
        return self.ranking.protocol

    @property
    def default_metric(self) -> str:
        """The name of the metric that chooses the best checkpoint by default."""
        return headline_of(self.ranking.tasks[0].task)

    def save(self, path: str | Path) -> None:
        """Write the ranking, with all that it was made from but the features, atomically.

        Args:
            path: a NumPy .npz file, by habit ``evaluation.npz`` in the folder of the run.

        Raises:
            OSError: if writing fails.
        """
        from fusecomp.evaluation._file import write_ranking

        write_ranking(as_path("path", path), self.ranking)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote, and compute the metrics again.

        Args:
            path: the file, or a folder that holds it as ``evaluation.npz``.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the file is torn or no evaluation.
        """
        from fusecomp.evaluation._file import read_ranking

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
            A DataFrame with the tasks' names as its index, ``task``, and the columns ``queries``,
            ``gallery images`` and each metric in per cent, such as ``recall@10 (%)``. Means over
            several tasks are no rows.

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
        """The table that is printed: a head with the tasks, then one row a metric."""
        # What sums up all tasks stands under their mean.
        rows: dict[str, dict[str, str]] = {}
        for name, value in self.metrics.items():
            group, _, metric = name.rpartition("/")
            rows.setdefault(metric, {})[group or mean_group(self.ranking)] = f"{value:.2f}"
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
        dataset: with known targets.
        num_workers: processes that load images; None chooses.
        on_error: as in ``rank``.

    Returns:
        A mapping of metrics in per cent: ``TASK/recall@k`` for each task, ``mean/recall@k``
        over several tasks, and ``mean``, the mean of these. Each query counts the same within a
        task, each task the same in the means. Where tasks have subsets, also
        ``recall_subset@k``, and in place of ``mean`` CIRR's: ``mean(recall@5,
        recall_subset@1)`` if 5 is among the k, and the ``arithmetic_mean``, ``harmonic_mean``
        and ``geometric_mean`` of all recalls, the last two 0 if one of these is.

    Raises:
        TypeError: if model or dataset is something else, as when they are swapped.
        ValueError: if targets are unknown (then use ``rank``), or a feature is not finite.
        FileNotFoundError: if images are missing.
    """
    require_both(model, dataset)
    metric_names(dataset)  # raises before anything is encoded
    return compute_metrics(rank(model, dataset, num_workers=num_workers, on_error=on_error))


def compute_metrics(ranking: Ranking) -> Evaluation:
    """The metrics of a ranking.

    Raises:
        TypeError: if it is no ranking.
        ValueError: if there is no task, a task has no targets, or one of its queries has none.
    """
    if not isinstance(ranking, Ranking):
        raise TypeError(
            f"ranking must be a Ranking, as rank returns it, got {type(ranking).__name__}; an "
            "Evaluation holds one as .ranking"
        )
    for name, found in ranking.items():
        if found.ranks is None:
            raise ValueError(f"task {name!r} has no targets, so there is nothing to score")
        found.task.require_targets()
    recalls = {
        name: {
            metric: 100 * hits.double().sum() / len(hits) for metric, hits in task.hits().items()
        }
        for name, task in ranking.items()
    }
    return Evaluation({name: float(v) for name, v in average_tasks(recalls).items()}, ranking)


def require_evaluation(name: str, value: Any) -> None:
    """Raise TypeError unless this is an evaluation."""
    if not isinstance(value, Evaluation):
        raise TypeError(
            f"{name} must be an Evaluation, as evaluate returns it, got {shown(value)}; "
            "Evaluation.load(path) reads a saved one"
        )

import re
from collections.abc import Sequence

from fusecomp.training._progress import Record
from fusecomp.training._workdir import Weights, Workdir

# What file systems take is 255 bytes; the rest says the epoch.
_LONGEST_NAME = 100


class BestWeights:
    """The best weights by each metric, in the workdir or in memory; the history says which.

    Args:
        metrics: whose highest values are the best; the first decides about the result.
        keep: how many weights to keep by each metric; of equal values the earlier is better.
        workdir: where their files are; None keeps them in memory.
    """

    def __init__(self, metrics: Sequence[str], keep: int, workdir: Workdir | None) -> None:
        self._metrics = metrics
        self._keep = keep
        self._workdir = workdir
        self._in_memory: dict[str, Weights] = {}

    def _best(self, metric: str, history: Sequence[Record]) -> list[Record]:
        validated = [record for record in history if metric in record]
        # A stable sort keeps the earlier of two equal values ahead.
        return sorted(validated, key=lambda record: -record[metric])[: self._keep]

    def names(self, history: Sequence[Record]) -> set[str]:
        """Return the files of all best weights."""
        return {_file_name(m, r) for m in self._metrics for r in self._best(m, history)}

    def offer(self, history: Sequence[Record], weights: Weights) -> None:
        """Keep the last epoch's weights by each metric for which they are among the best."""
        names = self.names(history)
        new = names & {_file_name(metric, history[-1]) for metric in self._metrics}
        if self._workdir is None:
            held = self._in_memory | dict.fromkeys(new, weights)
            self._in_memory = {name: held[name] for name in names}
            return
        for name in sorted(new):
            self._workdir.save_best(name, weights)
        self._workdir.remove_best_but(names)

    def epochs_without_better(self, history: Sequence[Record]) -> int:
        """Count the validated epochs since the best one by the deciding metric."""
        metric = self._metrics[0]
        best = self._best(metric, history)
        return sum(metric in r and r["epoch"] > best[0]["epoch"] for r in history) if best else 0

    def result(self, history: Sequence[Record], like: Weights) -> tuple[Weights, Record]:
        """Return the deciding metric's best weights, which must fit ``like``, and their record."""
        record = self._best(self._metrics[0], history)[0]
        name = _file_name(self._metrics[0], record)
        if self._workdir is None:
            return self._in_memory[name], record
        return self._workdir.load_best(name, like), record


def _file_name(metric: str, record: Record) -> str:
    """Name a file of weights: ``dress/recall@10`` -> ``dress-recall-10-epoch-7.pt``.

    Metrics of one such name share the file of an epoch that is the best by both: its weights.
    """
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", metric).strip("-")[:_LONGEST_NAME]
    return f"{slug}-epoch-{int(record['epoch'])}.pt"

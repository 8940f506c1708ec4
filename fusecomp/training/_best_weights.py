import re
from collections.abc import Sequence
from typing import TypedDict

from fusecomp.training._progress import Record
from fusecomp.training._workdir import Weights, Workdir

# What file systems take is 255 bytes; the rest says the epoch.
_LONGEST_NAME = 100


class _Entry(TypedDict):
    name: str
    value: float
    record: dict[str, float]


class BestWeights:
    """The best weights by each metric, in the workdir or in memory.

    Args:
        metrics: whose highest values are the best; the first decides about the result.
        keep: how many weights to keep by each.
        workdir: where their files are; None keeps them in memory.
    """

    def __init__(self, metrics: Sequence[str], keep: int, workdir: Workdir | None) -> None:
        self.metrics = metrics
        self._keep = keep
        self._workdir = workdir
        self._in_memory: dict[str, Weights] = {}
        # By metric, best first: file name, value, and the record of the epoch.
        self.entries: dict[str, list[_Entry]] = {metric: [] for metric in metrics}

    def offer(self, record: Record, weights: Weights) -> None:
        """Keep an epoch's weights by each metric for which they are among the best.

        Of equal values the earlier one is better.
        """
        for metric in self.metrics:
            entries, value = self.entries[metric], record[metric]
            if len(entries) == self._keep and value <= entries[-1]["value"]:
                continue
            name = f"{_slug(metric)}-epoch-{int(record['epoch'])}.pt"
            self._save(name, weights)
            entries.append({"name": name, "value": value, "record": dict(record)})
            # A stable sort keeps the earlier of two equal values ahead.
            entries.sort(key=lambda entry: -entry["value"])
            del entries[self._keep :]
        for name in self._in_memory.keys() - self.names():
            del self._in_memory[name]
        if self._workdir is not None:
            self._workdir.remove_best_but(self.names())

    def restore(self, entries: dict[str, list[_Entry]]) -> None:
        """Go on from the entries of a checkpoint."""
        self.entries = entries
        if self._workdir is not None:
            self._workdir.needed = self.names()

    def names(self) -> set[str]:
        """Return the files that are in use."""
        return {entry["name"] for entries in self.entries.values() for entry in entries}

    def epochs_without_better(self, history: Sequence[Record]) -> int:
        """Count the validated epochs since the best one by the deciding metric."""
        metric = self.metrics[0]
        if not self.entries[metric]:
            return 0
        best = self.entries[metric][0]["record"]["epoch"]
        return sum(metric in record and record["epoch"] > best for record in history)

    def result(self, like: Weights) -> tuple[Weights, Record]:
        """Return the deciding metric's best weights, which must fit ``like``, and their record."""
        best = self.entries[self.metrics[0]][0]
        if self._workdir is None:
            return self._in_memory[best["name"]], best["record"]
        return self._workdir.load_best(best["name"], like), best["record"]

    def _save(self, name: str, weights: Weights) -> None:
        if self._workdir is None:
            self._in_memory[name] = weights
        else:
            self._workdir.save_best(name, weights)


def _slug(metric: str) -> str:
    """Make a part of a file name: ``dress/recall@10`` -> ``dress-recall-10``.

    Metrics of one such name share a file in an epoch that is the best by both: its weights.
    """
    return re.sub(r"[^A-Za-z0-9_]+", "-", metric).strip("-")[:_LONGEST_NAME]

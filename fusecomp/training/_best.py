import re
from collections.abc import Mapping, Sequence
from typing import Any

from fusecomp.training._workdir import Workdir

__all__ = ["BestWeights"]

# What file systems take is 255 bytes; the rest says the epoch.
_LONGEST_NAME = 100


class BestWeights:
    """The best weights by each metric, in the workdir or in memory.

    Args:
        metrics: whose highest values are the best; the first decides about the result.
        keep: how many weights to keep by each.
        workdir: where their files are; None keeps them in memory.
    """

    def __init__(self, metrics: Sequence[str], keep: int, workdir: Workdir | None) -> None:
        self._metrics = metrics
        self._keep = keep
        self._workdir = workdir
        self._in_memory: dict[str, Mapping[str, Any]] = {}
        # By metric, best first: file name, value, and the record of the epoch.
        self.entries: dict[str, list[dict[str, Any]]] = {metric: [] for metric in metrics}

    def offer(self, record: Mapping[str, float], weights: Mapping[str, Any]) -> None:
        """Keep an epoch's weights by each metric for which they are among the best.

        Of equal values the earlier one is better.
        """
        for metric in self._metrics:
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

    def restore(self, entries: dict[str, list[dict[str, Any]]]) -> None:
        """Go on from the entries of a checkpoint."""
        self.entries = entries
        if self._workdir is not None:
            self._workdir.needed = self.names()

    def names(self) -> set[str]:
        """The files that are in use."""
        return {entry["name"] for entries in self.entries.values() for entry in entries}

    @property
    def epoch(self) -> int:
        """The epoch of the best weights by the deciding metric."""
        return int(self._first["record"]["epoch"])

    def result(self, like: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, float]]:
        """The best weights by the deciding metric, and their record.

        Args:
            like: weights of the same names, shapes and dtypes, which a file must fit.
        """
        name = self._first["name"]
        if self._workdir is None:
            return self._in_memory[name], self._first["record"]
        return self._workdir.load_best(name, like), self._first["record"]

    @property
    def _first(self) -> dict[str, Any]:
        return self.entries[self._metrics[0]][0]

    def _save(self, name: str, weights: Mapping[str, Any]) -> None:
        if self._workdir is None:
            self._in_memory[name] = weights
        else:
            self._workdir.save_best(name, weights)


def _slug(metric: str) -> str:
    """A metric as a part of a file name: ``dress/recall@10`` -> ``dress-recall-10``.

    Metrics of one such name share a file in an epoch that is the best by both: its weights.
    """
    return re.sub(r"[^A-Za-z0-9_]+", "-", metric).strip("-")[:_LONGEST_NAME]

"""The rankings of a dataset's tasks together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fusecomp.evaluation._protocol import describe_protocol
from fusecomp.types import TaskRanking


@dataclass(frozen=True, slots=True, eq=False)
class Ranking(Mapping[str, TaskRanking]):
    """Rankings of a dataset's tasks by name; reports and metrics are made from them.

    Args:
        tasks: the ranking of each task.
        protocol: the options of the dataset that make scores comparable or not.
    """

    tasks: Sequence[TaskRanking]
    protocol: Mapping[str, str]

    def __getitem__(self, name: str) -> TaskRanking:
        for ranking in self.tasks:
            if ranking.task.name == name:
                return ranking
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (ranking.task.name for ranking in self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def summary(self) -> tuple[str, str]:
        """Return the two lines printed with each score: the size of each task, and the protocol."""
        sizes = ", ".join(str(ranking.task) for ranking in self.tasks)
        return sizes, describe_protocol(self.protocol)

    def __repr__(self) -> str:
        return f"Ranking({'; '.join(self.summary())})"

"""Metrics of sessions of several rounds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from fusecomp._core.metrics import hits_at_k
from fusecomp.evaluation._protocol import describe_protocol


class TaskRounds(NamedTuple):
    """Ranks of one task's sessions: int64 [S, R], from 1, or -1 where the target was left out.

    A session that has ended keeps its last rank; ``asked``, int64 [S], are the rounds of each.
    """

    name: str
    ranks: Tensor
    asked: Tensor
    gallery_size: int


@dataclass(frozen=True, eq=False)
class RoundsEvaluation(Mapping[str, float]):
    """Metrics by name, such as ``dress/round 2/recall@10``; prints as a table of the rounds.

    With the target's rank r in a gallery of N images, in per cent of the sessions:

    - ``recall@k``: r <= k in this round;
    - ``hits@k``: r <= k in this round or an earlier one (Levy, Ben-Ari, Darshan, Lischinski,
      Chatting makes perfect: Chat-based image retrieval, NeurIPS 2023);
    - ``percentile``: the mean of 1 - (r - 1) / (N - 1) (Guo, Wu, Cheng, Rennie, Tesauro, Feris,
      Dialog-based interactive image retrieval, NeurIPS 2018); 0 where the target was left out.

    A session that has ended keeps its last rank. Of several tasks, ``mean/round 2/recall@10`` is
    the mean, where they count alike.

    Args:
        tasks: the ranks of each task's sessions, all of as many rounds.
        ks: the numbers k of the metrics.
        protocol: the options that make scores comparable or not.
    """

    tasks: Sequence[TaskRounds]
    ks: Sequence[int]
    protocol: Mapping[str, str]
    metrics: Mapping[str, float] = field(init=False)

    def __post_init__(self) -> None:
        found = {task.name: _metrics(task, self.ks) for task in self.tasks}
        if len(found) > 1:
            values = found.values()
            names = next(iter(values))
            found["mean"] = {n: sum(of[n] for of in values) / len(values) for n in names}
        metrics = {
            f"{task}/{name}" if task else name: value
            for task, values in found.items()
            for name, value in values.items()
        }
        object.__setattr__(self, "metrics", metrics)

    def __getitem__(self, name: str) -> float:
        if name not in self.metrics:
            raise KeyError(f"no metric {name!r}; there are {', '.join(self.metrics)}")
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __str__(self) -> str:
        group = "mean" if len(self.tasks) > 1 else self.tasks[0].name
        rounds = [
            [n for n in self.metrics if n.startswith(f"{group}/round {r}/".lstrip("/"))]
            for r in range(1, self.tasks[0].ranks.shape[1] + 1)
        ]
        asked = torch.cat([task.asked for task in self.tasks])
        heads = ["round", "asked", *(name.split("/")[-1] for name in rounds[0])]
        lines = ["  ".join(f"{head:>10}" for head in heads)]
        for number, names in enumerate(rounds, 1):
            counts = f"{number:>10}  {int((asked >= number).sum()):>10}"
            lines.append("  ".join([counts, *(f"{self[name]:10.2f}" for name in names)]))
        return "\n".join([*lines, describe_protocol(self.protocol)])

    __repr__ = __str__


def _metrics(task: TaskRounds, ks: Sequence[int]) -> dict[str, float]:
    found: dict[str, float] = {}
    best = [torch.stack([hits_at_k(ranks, k) for ranks in task.ranks.T]) for k in ks]
    share = 1 - (task.ranks.double() - 1) / max(1, task.gallery_size - 1)
    share = share.masked_fill(task.ranks < 1, 0)
    for r in range(task.ranks.shape[1]):
        values = {f"recall@{k}": hits[r] for k, hits in zip(ks, best, strict=True)}
        values |= {f"hits@{k}": hits[: r + 1].any(0) for k, hits in zip(ks, best, strict=True)}
        values["percentile"] = share[:, r]
        for name, value in values.items():
            found[f"round {r + 1}/{name}"] = 100 * float(value.double().mean())
    return found

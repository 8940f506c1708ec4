"""A dataset of any tasks over numbered images, and how a task is ranked in loops."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fusecomp._core.metrics import recalls
from fusecomp.caching import CachedEncoder
from fusecomp.types import Task, Triplet


@dataclass
class Toy:
    """Some tasks over numbered images; whatever a task names exists."""

    task_list: Sequence[Task]
    protocol: Mapping[str, str] = field(default_factory=lambda: {"dataset": "Toy"})

    @property
    def image_ids(self) -> Sequence[str]:
        return list(dict.fromkeys(image_id for task in self.task_list for image_id in task.gallery))

    def path(self, image_id: str) -> Path:
        return Path(f"{image_id}.png")

    def triplets(self, epoch: int = 0, seed: int = 0) -> Sequence[Triplet]:
        return [query for task in self.task_list for query in task.queries]

    def texts(self) -> Sequence[str]:
        return list(dict.fromkeys(text for query in self.triplets() for text in query.texts))

    def tasks(self) -> Sequence[Task]:
        return self.task_list

    def __len__(self) -> int:
        return len(self.triplets())


def toy_task(
    name: str = "toy", queries: int = 12, size: int = 9, *, with_subsets: bool = True
) -> Task:
    rng = np.random.default_rng(queries * size)
    gallery = [f"{name}{number}" for number in rng.permutation(size)]
    rows, subsets = [], []
    for number in range(queries):
        members = [gallery[i] for i in rng.permutation(size)[:5]]
        count = 1 + number % 3
        texts = tuple(f"text {i}" for i in rng.permutation(6)[:count])
        rows.append(Triplet(f"{name}/{number}", members[0], texts, members[1]))
        subsets.append(tuple(members[1:]))
    exclude = [(row.reference_id,) for row in rows]
    metrics = recalls((1, 2, 5), with_subsets)
    return Task(name, rows, gallery, exclude, subsets if with_subsets else None, metrics)


def in_loops(encoder: CachedEncoder, task: Task) -> tuple[list[list[str]], list[int], list[int]]:
    """The ranked gallery, the target's rank, and its rank in the subset, for each query."""
    rankings, ranks, subset_ranks = [], [], []
    for number, query in enumerate(task.queries):
        image = encoder.encode_image([query.reference_id])[0].double().numpy()
        texts = [encoder.encode_text([text])[0].double().numpy() for text in query.texts]
        composed = image + sum(texts) / len(texts)
        scores = {}
        for image_id in task.gallery:
            if task.exclude is not None and image_id in task.exclude[number]:
                continue
            other = encoder.encode_image([image_id])[0].double().numpy()
            lengths = np.linalg.norm(composed) * np.linalg.norm(other)
            scores[image_id] = float(composed @ other / lengths)
        ranking = sorted(scores, key=lambda image_id: -scores[image_id])
        rankings.append(ranking)
        wanted = query.target_id
        ranks.append(ranking.index(wanted) + 1 if wanted in ranking else -1)
        if task.subsets is not None:
            members = [image_id for image_id in ranking if image_id in task.subsets[number]]
            subset_ranks.append(members.index(wanted) + 1 if wanted in members else -1)
    return rankings, ranks, subset_ranks

"""Sessions of toy images, for tests of how rounds are scored."""

from collections.abc import Sequence

from evaluations import random_model
from tasks import Toy

from fusecomp.types import Task, Triplet

IDS = [f"{number}" for number in range(20)]
CHAINS = {"dataset": "Toy", "sessions": "chain"}


class Sessions(Toy):
    """Sessions of the queries whose ids begin alike: "0/1" is round 1 of session 0."""

    def sessions(self) -> Sequence[Sequence[str]]:
        found: dict[str, list[str]] = {}
        for query in self.triplets():
            found.setdefault(query.query_id.rpartition("/")[0], []).append(query.query_id)
        return [*found.values()]


def make_task(name: str, *sessions: Sequence[str]) -> Task:
    """Each session is a row of images: the ones shown, then the target."""
    queries = [
        Triplet(f"{name}{number}/{place}", image, (f"text {place}",), images[-1])
        for number, images in enumerate(sessions)
        for place, image in enumerate(images[:-1])
    ]
    return Task(name, queries, IDS)


# Its protocol says what ``evaluate`` does with references, not what becomes of them in rounds.
OPTIONS = {**CHAINS, "reference": "kept"}
DATA = Sessions([make_task("a", "123", "45", "6789"), make_task("b", "96", "1357")], OPTIONS)
MODEL = random_model(DATA)

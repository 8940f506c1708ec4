"""Files that were changed by accident or on purpose: each is refused by its name, or harmless."""

import os
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import eight_steps
import pytest
import torch
from cacheable import IDS, TEXTS, cached, live

import fusecomp as fc
from fusecomp._core.files import checksum
from fusecomp.evaluation import TaskRanking, compute_metrics
from fusecomp.types import Task

# Longer than any of these files takes; one that waits for ever would take longer still.
SECONDS = 10


class Kind(NamedTuple):
    """A kind of file: its name, how it is written, and all that is read, as one checksum."""

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], str]


def write_model(path: Path) -> None:
    fusion = fc.Combiner(4, projection_dim=3, hidden_dim=5)
    fc.ComposedEncoder(live(), fusion).save(path.parent)


def read_model(path: Path) -> str:
    back = fc.ComposedEncoder.load(path.parent, live(seed=1))
    return checksum([repr(back.fusion), dict(back.state_dict())])


def read_features(path: Path) -> str:
    back = fc.CachedEncoder.load(path, check=True)
    features = [back.encode_image(IDS), back.encode_text(TEXTS)]
    return checksum([features, list(back.image.rows), list(back.text.rows), back.key])


def write_evaluation(path: Path) -> None:
    ids = [f"i{number}" for number in range(7)]
    queries = [fc.Triplet(str(n), ids[n], (f"is {n}",), ids[n + 2]) for n in range(4)]
    task = Task("a", queries, ids, exclude=[(query.reference_id,) for query in queries])
    scores = torch.rand(4, 7, generator=torch.Generator().manual_seed(0))
    scores[range(4), range(4)] = -torch.inf
    values, indices = scores.sort(dim=1, descending=True)
    indices[:, 6] = -1
    ranks = (indices == torch.arange(2, 6).unsqueeze(1)).int().argmax(1) + 1
    found = TaskRanking(task, indices, values, ranks)
    compute_metrics(fc.Ranking([found], {"dataset": "drawn"})).save(path)


def read_evaluation(path: Path) -> str:
    back = fc.Evaluation.load(path)
    (found,) = back.ranking.tasks
    texts = [repr(query) for query in found.task.queries]
    tensors = [found.indices, found.scores, found.ranks]
    about = [list(found.task.gallery), repr(found.task.exclude), repr(found.task.metrics)]
    return checksum([dict(back), dict(back.protocol), texts, tensors, about])


def train(last: Path) -> fc.Run:
    """A training of two steps, which leaves ``last.pt``; or, if it is there, what it holds."""
    config = fc.StageConfig(epochs=1, batch_size=5, lr=0.05)
    return eight_steps.fit(last.parent, config, workdir=last.parent)


def read_last(path: Path) -> str:
    run = train(path)
    return checksum([dict(run.model.state_dict()), run.history])


KINDS = {
    "last.pt": Kind("last.pt", train, read_last),
    "config": Kind("model/config.json", write_model, read_model),
    "weights": Kind("model/weights.safetensors", write_model, read_model),
    "features": Kind("features", lambda path: cached().save(path), read_features),
    "evaluation": Kind("evaluation", write_evaluation, read_evaluation),
}


def flipped(whole: bytes, chance: random.Random) -> bytes:
    changed, place = bytearray(whole), chance.randrange(8 * len(whole))
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def overwritten(whole: bytes, chance: random.Random) -> bytes:
    """A few bytes in place of others, as where a field is changed."""
    length, place = chance.choice([1, 2, 4, 8, 64]), chance.randrange(len(whole))
    value = chance.choice(
        [bytes(length), b"\xff" * length, chance.randbytes(length), b"9" * length]
    )
    return whole[:place] + value + whole[place + length :]


def moved(whole: bytes, chance: random.Random) -> bytes:
    """A piece taken out and put in elsewhere."""
    start, place = (chance.randrange(len(whole)) for _ in range(2))
    piece = whole[start : start + chance.choice([1, 8, 64, 512])]
    rest = whole[:start] + whole[start + len(piece) :]
    return rest[:place] + piece + rest[place:]


def cut(whole: bytes, chance: random.Random) -> bytes:
    return whole[: chance.randrange(len(whole))]


def appended(whole: bytes, chance: random.Random) -> bytes:
    return whole + chance.choice([b"\0", b"\n", chance.randbytes(64), whole])


CHANGES = [flipped, overwritten, moved, cut, appended]


@pytest.mark.parametrize("times", [25, pytest.param(500, marks=pytest.mark.long)])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_is_refused_or_read_as_before(
    tmp_path: Path,
    kind: str,
    change: Callable[[bytes, random.Random], bytes],
    times: int,
) -> None:
    path = tmp_path / KINDS[kind].name
    KINDS[kind].write(path)
    whole, expected = path.read_bytes(), KINDS[kind].read(path)
    refused = 0
    for seed in range(times):
        # Another file, as the one before may still be mapped into memory.
        path.unlink()
        path.write_bytes(change(whole, random.Random(seed)))
        started = time.monotonic()
        try:
            with warnings.catch_warnings(action="ignore"):  # torch's, on its way to an error
                assert KINDS[kind].read(path) == expected, f"seed {seed}"
        except (ValueError, OSError) as error:
            assert str(path) in str(error), f"seed {seed}"
            refused += 1
        assert time.monotonic() - started < SECONDS, f"seed {seed}"
    # Some bytes of an archive say nothing, and none behind its end does.
    assert refused > times / 4 or change is appended


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipe_in_place_of_a_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / KINDS[kind].name
    KINDS[kind].write(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match=str(path)):
        KINDS[kind].read(path)

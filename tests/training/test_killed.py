"""A training that is killed at any moment goes on to the same weights, to the bit."""

import multiprocessing
import random
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import DIM, Toy, assert_same, encoder

import fusecomp as fc
from fusecomp.files import read_tensors

CONFIG = fc.StageConfig(
    epochs=6,
    batch_size=4,
    lr=0.05,
    train=("text", "fusion"),
    schedule="cosine",
    warmup=2,
    clip=1.0,
    ema=0.9,
    micro_batch=2,
    encoder_mode="train",
    metric=("recall@1", "recall@5"),
    keep=2,
    save_every=1,
)
# A fork of a process that has imported everything starts at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["fusecomp", "toy"])


class Drawing:
    """An evaluation that draws random numbers must not change training; and time for a kill."""

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def on_evaluation(self, trainer: fc.Trainer, evaluation: fc.Evaluation) -> None:
        torch.rand(7)
        time.sleep(self.pause)

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        time.sleep(self.pause)


def train(root: Path, workdir: Path, pause: float = 0.0, config: fc.StageConfig = CONFIG) -> None:
    torch.set_num_threads(1)
    data = Toy(root, rows=12)
    model = fc.ComposedEncoder(encoder(dropout=0.5), fc.Combiner(DIM, dropout=0.5))
    run = fc.fit(model, data, fc.InfoNCE(0.1), config, data, workdir, [Drawing(pause)])
    run.model.save(workdir / "result.pt")


def start(root: Path, workdir: Path, config: fc.StageConfig) -> BaseProcess:
    process = CONTEXT.Process(target=train, args=(root, workdir, 0.005, config))
    process.start()
    return process


def killed_and_resumed(root: Path, config: fc.StageConfig, kills: int, seed: int) -> int:
    """Kill a training until it ends or so many times; how often that came to pass."""
    chance = random.Random(seed)
    for count in range(kills):
        process = start(root, root / "killed", config)
        # A run takes about a second: early, late, and sometimes after the end.
        process.join(chance.uniform(0.05, 0.6))
        if process.exitcode is not None:
            assert process.exitcode == 0
            return count
        process.kill()
        process.join()
    return kills


@pytest.mark.parametrize("save_every", [1, None])
@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.long)])
def test_killed_at_any_moment_and_resumed_equals_never_killed(
    tmp_path: Path, save_every: int | None, kills: int
) -> None:
    config = replace(CONFIG, save_every=save_every)
    straight = CONTEXT.Process(target=train, args=(tmp_path, tmp_path / "straight", 0.0, config))
    straight.start()
    straight.join(60)
    assert straight.exitcode == 0
    seed = random.SystemRandom().randrange(2**32)
    done = killed_and_resumed(tmp_path, config, kills, seed)
    last = start(tmp_path, tmp_path / "killed", config)
    last.join(60)
    assert last.exitcode == 0
    assert done >= 1, f"seed {seed}"
    for name in ("result.pt", "last.pt"):
        one, other = (read_tensors(tmp_path / run / name) for run in ("straight", "killed"))
        assert_same(one, other, f"{name} (seed {seed})")
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("straight", "killed")]
    assert logs[0] == logs[1], f"seed {seed}"
    kept = [{p.name for p in (tmp_path / run / "best").iterdir()} for run in ("straight", "killed")]
    assert kept[0] == kept[1]

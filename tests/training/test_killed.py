"""A training that is killed at any moment goes on to the same weights, to the bit."""

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import CONTEXT
from torch import Tensor
from toy import DIM, Toy, assert_same, encoder

import fusecomp as fc
from fusecomp._core.files import read_tensors
from fusecomp._core.safetensors import read_safetensors

CONFIG = fc.StageConfig(
    epochs=6,
    batch_size=4,
    lr=0.05,
    trainable=("text", "fusion"),
    lr_schedule="cosine",
    warmup_steps=2,
    max_grad_norm=1.0,
    ema_decay=0.9,
    micro_batch_size=2,
    encoder_mode="train",
    metric=("recall@1", "recall@5"),
    keep_best=2,
    save_every_steps=1,
)


class Drawing:
    """An evaluation that draws random numbers must not change training; and time for a kill."""

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def on_evaluation(self, trainer: fc.Trainer, evaluation: fc.Evaluation) -> None:
        torch.rand(7)
        time.sleep(self.pause)

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        time.sleep(self.pause)


def train(
    root: Path, workdir: Path, config: fc.StageConfig, pause: float, rank: int, meeting: Path | None
) -> None:
    torch.set_num_threads(1)
    if meeting is not None:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    data = Toy(root, rows=12)
    model = fc.ComposedEncoder(encoder(dropout=0.5), fc.Combiner(DIM, dropout=0.5))
    run = fc.Trainer(
        model, loss=fc.InfoNCE(0.1), config=config, workdir=workdir, callbacks=[Drawing(pause)]
    ).fit(data, data)
    if rank == 0:
        run.model.save(workdir / "result")
    if meeting is not None:
        dist.destroy_process_group()


def start(
    root: Path, workdir: Path, config: fc.StageConfig, count: int, pause: float = 0.005
) -> Sequence[BaseProcess]:
    """Begin a training on so many processes, or go on with it."""
    meeting = None if count == 1 else root / f"meeting-{uuid.uuid4()}"
    processes = [
        CONTEXT.Process(target=train, args=(root, workdir, config, pause, rank, meeting))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def finish(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.join(300)
        assert process.exitcode == 0


def kill_until_it_ends(
    root: Path, workdir: Path, config: fc.StageConfig, count: int, pauses: Iterator[float]
) -> int:
    """Start a training again and again, kill it after each pause; how often that came to pass."""
    kills = 0
    for pause in pauses:
        processes = start(root, workdir, config, count)
        processes[0].join(pause)
        if processes[0].exitcode is not None:
            finish(processes)
            return kills
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        kills += 1
    finish(start(root, workdir, config, count))
    return kills


def assert_same_files(one: Path, other: Path, where: str) -> None:
    name = "last.pt"
    assert_same(read_tensors(one / name), read_tensors(other / name), f"{name} {where}")
    name = "result/weights.safetensors"
    results = [dict(read_safetensors(run / name).tensors) for run in (one, other)]
    assert_same(results[0], results[1], f"{name} {where}")
    assert (one / "log.jsonl").read_text() == (other / "log.jsonl").read_text(), where
    # A kill while a file is written must not leave half of it behind.
    kept = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in (one, other)]
    assert kept[0] == kept[1], where


@pytest.mark.parametrize("save_every", [1, None])
@pytest.mark.parametrize(
    ("count", "kills"),
    [
        (1, 6),
        (2, 3),
        pytest.param(1, 50, marks=pytest.mark.long),
        pytest.param(2, 50, marks=pytest.mark.long),
    ],
)
def test_killed_at_any_moment_and_resumed_equals_never_killed(
    tmp_path: Path, count: int, save_every: int | None, kills: int
) -> None:
    config = replace(CONFIG, save_every_steps=save_every)
    finish(start(tmp_path, tmp_path / "warm-up", config, count))
    began = time.monotonic()
    finish(start(tmp_path, tmp_path / "straight", config, count, pause=0.0))
    seconds = time.monotonic() - began
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    done = runs = 0
    while done < kills:
        workdir = tmp_path / f"killed-{runs}"
        runs += 1
        # Early or late in a run, and sometimes after the end of one that had little left to do.
        pauses = (chance.uniform(0.05, 0.9) * seconds for _ in range(kills - done))
        done += kill_until_it_ends(tmp_path, workdir, config, count, pauses)
        assert_same_files(tmp_path / "straight", workdir, f"(seed {seed})")

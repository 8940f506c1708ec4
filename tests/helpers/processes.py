"""Real processes for tests: they start once a session and then run one function after another."""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_PATIENCE = 120.0
# A fork of a process that has imported everything starts at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["fusecomp.training", "fusecomp.evaluation", "torch._dynamo"])


class Processes:
    """Processes of one gloo group.

    Args:
        count: how many.
        folder: where they meet.
    """

    def __init__(self, count: int, folder: Path) -> None:
        self._workers = []
        self._pipes: list[Connection] = []
        for rank in range(count):
            here, there = CONTEXT.Pipe()
            arguments = (rank, count, str(folder / f"meeting-of-{count}"), there)
            worker = CONTEXT.Process(target=_work, args=arguments, daemon=True)
            worker.start()
            self._workers.append(worker)
            self._pipes.append(here)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What the function returns in each process, by rank; all take part."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers = []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(_PATIENCE):
                raise TimeoutError(f"process {rank} gave no answer within {_PATIENCE:.0f} s")
            answers.append(pipe.recv())
        failed = [text for ok, text in answers if not ok]
        if failed:
            raise RuntimeError("\n".join(failed))
        return [value for _, value in answers]

    def close(self) -> None:
        """End them."""
        for pipe in self._pipes:
            pipe.send(None)
        for worker in self._workers:
            worker.join(_PATIENCE)


def _work(rank: int, count: int, meeting: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    while (task := pipe.recv()) is not None:
        function, arguments = task
        try:
            pipe.send((True, function(*arguments)))
        except Exception:
            pipe.send((False, f"process {rank}:\n{traceback.format_exc()}"))
    dist.destroy_process_group()

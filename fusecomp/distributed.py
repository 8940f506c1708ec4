"""The only file that touches torch.distributed: who takes part, and what they exchange."""

import atexit
from typing import TypeVar

import torch.distributed as dist

__all__ = ["barrier", "gather_objects", "join", "rank", "world_size"]

_T = TypeVar("_T")


def join() -> None:
    """Join the processes that torchrun has started; nothing to do without torchrun.

    Training, extraction and evaluation call it. Under another launcher, call
    ``torch.distributed.init_process_group`` yourself beforehand.
    """
    if dist.is_available() and dist.is_torchelastic_launched() and not dist.is_initialized():
        dist.init_process_group()
        atexit.register(dist.destroy_process_group)


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _many() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if _many() else 1


def barrier() -> None:
    """Wait until every process is here."""
    if _many():
        dist.barrier()


def gather_objects(value: _T) -> list[_T]:
    """The value of every process, by rank, in every process; tensors should be on the CPU."""
    if not _many():
        return [value]
    values: list[_T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # every place is filled now


def _many() -> bool:
    return dist.is_available() and dist.is_initialized()

"""The only file that touches torch.distributed: who takes part, and what they exchange."""

import atexit
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "average_gradients",
    "barrier",
    "broadcast",
    "gather",
    "gather_objects",
    "join",
    "rank",
    "unwrapped",
    "world_size",
]

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


def gather(rows: Tensor) -> Tensor:
    """The rows of every process, by rank, in every process; their numbers may differ.

    Has gradients: its backward sums over the processes. Where each process computes the same loss
    of the gathered rows and ``average_gradients`` follows, every parameter gets the gradient of
    one process with all rows.

    Args:
        rows: [B, ...] on each process, any dtype; all but B equal everywhere.

    Shape:
        [sum of all B, ...].
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        own = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.empty_like(own) for _ in range(world_size())]
        dist.all_gather(counts, own)
        sizes = torch.cat(counts).tolist()
        ctx.start, ctx.count = sum(sizes[: rank()]), len(rows)
        # Every process must send the same shape.
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.count]


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Average each parameter's gradient over the processes, in place.

    A gradient that only some processes have counts as zero on the others.
    """
    if world_size() == 1 or not parameters:
        return
    device = parameters[0].device
    present = torch.tensor([p.grad is not None for p in parameters], device=device).float()
    dist.all_reduce(present)
    shared = [p for p, count in zip(parameters, present.tolist(), strict=True) if count]
    for parameter in shared:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for dtype in dict.fromkeys(parameter.dtype for parameter in shared):
        gradients = [p.grad for p in shared if p.dtype == dtype and p.grad is not None]
        # One message for all: many small ones would each wait for the slowest process.
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= world_size()
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))


def broadcast(values: Iterable[Any]) -> None:
    """Give every process the values that the first one's tensors have, in place."""
    if world_size() > 1:
        with torch.no_grad():
            for tensor in values:
                if isinstance(tensor, Tensor):
                    dist.broadcast(tensor, src=0)


def unwrapped(module: Any) -> Any:
    """The module inside DistributedDataParallel, which only knows ``forward``."""
    if isinstance(module, torch.nn.parallel.DistributedDataParallel):
        return module.module
    return module


def _many() -> bool:
    return dist.is_available() and dist.is_initialized()

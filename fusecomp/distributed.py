"""The only file that touches torch.distributed: who takes part, and what they exchange."""

import atexit
import importlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_T = TypeVar("_T")
_ENCODE = ("encode_image", "encode_text", "encode_image_tokens", "encode_text_tokens")


def join() -> None:
    """Join the processes that torchrun has started, as training does; do nothing without torchrun.

    Afterwards ``"cuda"`` is a GPU of each process's own, so call it before the model moves there.
    Under another launcher, call ``torch.distributed.init_process_group`` yourself beforehand.

    Raises:
        ValueError: if a variable that torchrun sets is missing or no number, naming it.

    Warns:
        RuntimeWarning: once, if another launcher has started several processes, which would each
            work alone.
    """
    if not dist.is_available() or dist.is_initialized():
        return
    if not dist.is_torchelastic_launched():
        _warn_of_other_launcher()
        return
    local_rank = _checked_local_rank()
    # More processes than GPUs are a run on the CPU.
    if local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    # Imported later, as by optimisers, its default arguments would keep the group alive; its
    # threads, still there when Python ends, would now and then abort the process.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group()
    atexit.register(dist.destroy_process_group)


def _checked_local_rank() -> int:
    """Return LOCAL_RANK; ValueError if a variable of torchrun is not as torchrun sets it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR")
    values = {name: os.environ.get(name, "") for name in names}
    for name, value in values.items():
        # A host may have any name.
        if not (value if name == "MASTER_ADDR" else value.isascii() and value.isdecimal()):
            raise ValueError(
                "torchrun seems to have started this process (TORCHELASTIC_RUN_ID is set), but "
                f"{name} is {value!r}: start it with torchrun, or unset TORCHELASTIC_RUN_ID to "
                "work in one process"
            )
    rank, world_size, local_rank = (int(values[name]) for name in names[:3])
    if rank >= world_size:
        raise ValueError(f"RANK={rank} is not below WORLD_SIZE={world_size}")
    return local_rank


@cache
def _warn_of_other_launcher() -> None:
    # The number of processes by launcher: a script's own, srun, mpirun, other MPIs.
    for name in ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        size = os.environ.get(name, "").strip()
        if size not in ("", "1"):
            warnings.warn(
                f"{name}={size}, but torchrun has not started this process: if there are several, "
                "each works alone, on all of the data. Start them with torchrun, or call "
                "torch.distributed.init_process_group before (it reads RANK, WORLD_SIZE, "
                "MASTER_ADDR and MASTER_PORT); unset the variable if there is one process",
                RuntimeWarning,
                stacklevel=4,
            )
            return


def get_rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _many() else 0


def get_world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _many() else 1


def barrier() -> None:
    """Wait until every process is here."""
    if _many():
        dist.barrier()


@contextmanager
def first_alone() -> Iterator[bool]:
    """Yield whether this process is the first, which does the work; all leave the block together.

    An error that one process raises in the block is raised by all.
    """
    try:
        yield get_rank() == 0
    except Exception as error:
        gather_objects(error)
        raise
    failures: list[Exception | None] = gather_objects(None)
    for failure in failures:
        if failure is not None:
            raise failure


def gather_objects(value: _T) -> list[_T]:
    """Return the values of all processes, by rank, on each; tensors should be on the CPU."""
    if not _many():
        return [value]
    values: list[_T | None] = [None] * get_world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # every place is filled now


def gather(rows: Tensor) -> Tensor:
    """Return the rows of all processes, by rank, on each.

    The backward pass sums gradients over the processes. Where each process computes the same loss
    of the gathered rows and ``average_gradients`` follows, every parameter gets the gradient of
    one process with all rows.

    Shape:
        [B, ...] on each process, of any dtype, where B may differ -> [sum of all B, ...].
    """
    if get_world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]  # torch gives no types
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.empty_like(count) for _ in range(get_world_size())]
        dist.all_gather(counts, count)
        sizes = torch.cat(counts).tolist()
        ctx.start, ctx.count = sum(sizes[: get_rank()]), len(rows)
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

    A gradient that a process lacks counts as zero there. Sharded parameters are left to FSDP2.
    """
    if get_world_size() == 1:
        return
    parameters = [parameter for parameter in parameters if not is_sharded(parameter)]
    if not parameters:
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
        flat /= get_world_size()
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))


def broadcast(values: Iterable[object]) -> None:
    """Give tensors, except sharded ones, the values that they have on rank 0, in place."""
    if get_world_size() > 1:
        with torch.no_grad():
            for tensor in values:
                if isinstance(tensor, Tensor) and not is_sharded(tensor):
                    dist.broadcast(tensor, src=0)


# Modules in DistributedDataParallel, or sharded by FSDP2


def prepare(part: _T) -> _T:
    """Make a part of a model callable here; return it, or the module inside of DDP.

    DistributedDataParallel and FSDP2 only know ``forward``. The first is taken off; the second
    learns of the encode methods, and has its weights sharded afterwards.
    """
    if isinstance(part, nn.parallel.DistributedDataParallel):
        part = part.module
    for module in _sharded_modules(part):
        module.reshard()
        for method in _ENCODE:
            # Registering puts a method of the same name on the object; twice would gather twice.
            if method in dir(module) and method not in vars(module):
                _imported("torch.distributed.fsdp").register_fsdp_forward_method(module, method)
    return part


@contextmanager
def gathered_weights(part: object) -> Iterator[None]:
    """Give every process all weights of a sharded part inside, to call it as often as it likes.

    Otherwise FSDP2 gathers the weights in each call, and all processes must make as many calls.
    """
    # Sharded first, as weights may have changed since they were gathered.
    modules = _sharded_modules(prepare(part))
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            # The default of torch, which does not tell what it was.
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()


def is_sharded(tensor: object) -> TypeGuard["DTensor"]:
    """Return whether each process holds a part of the tensor alone."""
    tensors = _imported("torch.distributed.tensor")
    return tensors is not None and isinstance(tensor, tensors.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor, which all processes must ask for; return others as they are."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor, sharing its memory; others as they are."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def shard_like(value: Tensor, tensor: Tensor) -> Tensor:
    """Shard a value as another tensor of its shape is; all processes must take part."""
    if not is_sharded(tensor):
        return value
    distribute = _imported("torch.distributed.tensor").distribute_tensor
    sharded: Tensor = distribute(value, tensor.device_mesh, tensor.placements)
    return sharded


def plain_class(part: object) -> type:
    """Return the class that an object had before FSDP2 replaced it."""
    fsdp = _imported("torch.distributed.fsdp")
    if fsdp is None or not isinstance(part, fsdp.FSDPModule):
        return type(part)
    return next(kind for kind in type(part).__mro__[1:] if not issubclass(kind, fsdp.FSDPModule))


def _sharded_modules(part: object) -> list[Any]:
    fsdp = _imported("torch.distributed.fsdp")
    if fsdp is None or not isinstance(part, nn.Module):
        return []
    return [module for module in part.modules() if isinstance(module, fsdp.FSDPModule)]


def _imported(name: str) -> Any:
    """Return a slow module of torch; whoever uses it has imported it."""
    return sys.modules.get(name)


def _many() -> bool:
    return dist.is_available() and dist.is_initialized()

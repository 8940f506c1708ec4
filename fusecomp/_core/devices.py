"""Device and precision of a callable that may or may not be a torch module."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain

import torch
from torch import nn

from fusecomp._core.checks import require_choice
from fusecomp._core.reading import reading

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def device_of(*parts: object) -> torch.device:
    """Return the device of the parts' first parameter or buffer; the CPU if they have none."""
    return next(_devices(*parts), torch.device("cpu"))


def require_one_device(encoder: object, fusion: object) -> None:
    """Raise ValueError if encoder and fusion have tensors, and not on one device."""
    one, other = (next(_devices(part), None) for part in (encoder, fusion))
    if one and other and one != other:
        raise ValueError(
            f"the encoder is on {one} and the fusion on {other}: move both to one device, as "
            "model.to(device) does"
        )


def _devices(*parts: object) -> Iterator[torch.device]:
    modules = [part for part in parts if isinstance(part, nn.Module)]
    for module in modules:
        yield from (tensor.device for tensor in chain(module.parameters(), module.buffers()))


@contextmanager
def inference(*parts: object) -> Iterator[None]:
    """Set evaluation mode without gradients; no training changes the parts meanwhile."""
    with reading(*parts), torch.no_grad():
        yield


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context of a precision: ``"fp32"``, ``"bf16"``, or ``"fp16"`` on a GPU."""
    precision = require_choice("precision", precision, PRECISIONS)
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision='fp16' needs a GPU; use 'bf16' or 'fp32' on a CPU")
    dtype = PRECISIONS[precision]
    available = torch.amp.is_autocast_available(device.type)
    if not available or (dtype is None and not torch.is_autocast_enabled(device.type)):
        return nullcontext()
    return torch.autocast(device.type, dtype, enabled=dtype is not None)

"""Seeing the output of a module inside of a model, while the model encodes."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from fusecomp.types import Tokens


@contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[Any]]:
    """Collect what a module returns inside, in this thread."""
    outputs: list[Any] = []
    thread = get_ident()

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        if get_ident() == thread:
            outputs.append(output)

    with module.register_forward_hook(keep):
        yield outputs


def last_states(outputs: list[Any], side: str) -> Tensor:
    """Return the hidden states [B, L, W] among outputs; ValueError where there are none."""
    states = [output for output in outputs if isinstance(output, Tensor) and output.ndim == 3]
    if not states:
        raise ValueError(
            f"this {side} tower pools before its last norm, or is compiled as a whole, so that it "
            f"gives no tokens: take a fusion without {side}_tokens, or an encoder of your own with "
            f"encode_{side}_tokens"
        )
    return states[-1]


def all_tokens(states: Tensor) -> Tokens:
    """Return hidden states without padding as tokens."""
    return Tokens(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device))

"""Weights between those of two modules."""

import copy
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy import encoder

from fusecomp.training import interpolate

WEIGHTS = st.floats(0, 1)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(chain(module.named_parameters(), module.named_buffers()))


def equal_to_the_bit(one: nn.Module, other: nn.Module) -> bool:
    # Bytes, as -0.0 == 0.0.
    raw = (
        [t.detach().reshape(-1).view(torch.uint8) for t in tensors(m).values()]
        for m in (one, other)
    )
    return all(torch.equal(a, b) for a, b in zip(*raw, strict=True))


class Masked(nn.Module):
    """A module with numbers of every kind: a mask, counts, zeros of either sign."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(3, 4, generator=generator).to(dtype))
        self.zero = nn.Parameter(torch.tensor(-0.0 if seed else 0.0, dtype=dtype))
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
        self.register_buffer("count", torch.tensor(seed))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_its_ends_are_the_two_modules_to_the_bit(dtype: torch.dtype) -> None:
    before, after = Masked(0, dtype), Masked(1, dtype)
    assert equal_to_the_bit(interpolate(before, after, 0), before)
    assert equal_to_the_bit(interpolate(before, after, 1.0), after)


@settings(deadline=None)
@given(weight=WEIGHTS)
def test_it_is_the_weighted_mean(weight: float) -> None:
    before, after = Masked(0, torch.float64), Masked(1, torch.float64)
    between = interpolate(before, after, weight)
    expected = (1 - weight) * before.weight + weight * after.weight
    torch.testing.assert_close(between.weight, expected, rtol=0, atol=1e-15)
    assert torch.equal(tensors(between)["mask"], tensors(after)["mask"])
    assert tensors(between)["count"] == (1 if weight else 0)


@settings(deadline=None)
@given(weight=WEIGHTS)
def test_equal_modules_have_nothing_between_them(weight: float) -> None:
    assert equal_to_the_bit(interpolate(Masked(1), Masked(1), weight), Masked(1))


def test_half_types_are_rounded_once() -> None:
    before, after = (nn.Linear(1, 1, bias=False).half() for _ in range(2))
    nn.init.constant_(before.weight, -60_000.0)  # their difference is no float16
    nn.init.constant_(after.weight, 60_000.0)
    assert interpolate(before, after, 0.25).weight.item() == -30_000.0


def test_neither_module_changes_and_none_shares_memory_with_the_result() -> None:
    before, after = encoder(0), encoder(1)
    kept = copy.deepcopy(before), copy.deepcopy(after)
    after.requires_grad_(False).train()
    between = interpolate(before, after, 0.5)
    assert type(between) is type(after)
    assert between.training
    assert not any(p.requires_grad for p in between.parameters())
    for parameter in between.parameters():
        nn.init.zeros_(parameter)
    assert equal_to_the_bit(before, kept[0])
    assert equal_to_the_bit(after, kept[1])


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (nn.Linear(3, 2, bias=False), r"only after has 'bias' \(1 such\): give one module twice"),
        (nn.Linear(4, 2), r"'weight' differs between before and after: \[2, 4\] torch.float32 cpu"),
        (nn.Linear(3, 2).double(), r"'weight' differs .* torch.float64 cpu and .* torch.float32"),
        (nn.Linear(3, 2, device="meta"), r"'weight' differs .* meta and .* cpu"),
    ],
)
def test_modules_that_differ_are_named(before: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interpolate(before, nn.Linear(3, 2), 0.5)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), "half", True, None])
def test_a_weight_outside_is_named(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight must be"):
        interpolate(nn.Linear(3, 2), nn.Linear(3, 2), weight)


def test_a_state_dict_is_no_module() -> None:
    module: Any = nn.Linear(3, 2)
    with pytest.raises(TypeError, match="before must be a module, got OrderedDict"):
        interpolate(module.state_dict(), module, 0.5)

"""Unit length and cosine."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import own_error
from torch.utils._python_dispatch import TorchDispatchMode

from fusecomp._core.similarity import cosine, normalize, unit_rows
from fusecomp._core.tensors import check_pair, non_finite_rows, widen

HALF = (torch.float16, torch.bfloat16)
TOLERANCE = {
    torch.float16: 1e-3,
    torch.bfloat16: 1e-2,
    torch.float32: 1e-6,
    torch.float64: 1e-12,
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_normalize_gives_unit_length_and_keeps_the_dtype(dtype: torch.dtype) -> None:
    unit = normalize(torch.randn(2, 5, 7).to(dtype))
    assert unit.dtype == dtype
    lengths = unit.double().norm(dim=-1)
    torch.testing.assert_close(
        lengths, torch.ones(2, 5).double(), rtol=0, atol=10 * TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_zero_row_stays_zero_with_a_finite_gradient(dtype: torch.dtype) -> None:
    features = torch.zeros(2, 4, dtype=dtype, requires_grad=True)
    unit = normalize(features)
    unit.float().square().sum().backward()
    assert not unit.any()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_normalize_survives_norms_that_overflow_half_precision() -> None:
    features = torch.full((1, 64), 60000.0, dtype=torch.float16)
    torch.testing.assert_close(normalize(features).float(), torch.full((1, 64), 1 / 8))


def test_normalize_survives_norms_that_vanish_in_half_precision() -> None:
    features = torch.full((1, 64), 1e-4, dtype=torch.float16)
    torch.testing.assert_close(normalize(features).float(), torch.full((1, 64), 1 / 8))


WIDE = (torch.bfloat16, torch.float32, torch.float64)
wide_dtypes = pytest.mark.parametrize("dtype", WIDE, ids=str)


def spread(dtype: torch.dtype, width: int = 640) -> torch.Tensor:
    """Rows from ordinary ones to the largest there are; the squares of the last two overflow."""
    largest = torch.finfo(dtype).max
    rows = torch.randn(4, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows /= rows.abs().amax(dim=1, keepdim=True)
    lengths = torch.tensor([1.0, 1e-4, largest**0.5, largest * 0.99], dtype=torch.float64)
    return (rows * lengths.unsqueeze(1)).to(dtype)


@pytest.mark.parametrize("compiled", [False, True])
@wide_dtypes
def test_normalize_survives_squares_that_overflow(dtype: torch.dtype, compiled: bool) -> None:
    torch._dynamo.reset()
    function = torch.compile(normalize, fullgraph=True, backend="aot_eager")
    features = spread(dtype)
    unit = (function if compiled else normalize)(features)
    scaled = features.double() / features.double().abs().amax(dim=1, keepdim=True)
    expected = scaled / scaled.norm(dim=1, keepdim=True)
    torch.testing.assert_close(unit.double(), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("compiled", [False, True])
@wide_dtypes
def test_the_gradient_of_a_long_row_is_that_of_a_short_one(
    dtype: torch.dtype, compiled: bool
) -> None:
    torch._dynamo.reset()
    function = torch.compile(normalize, fullgraph=True, backend="aot_eager")
    scale = 2.0**100 if dtype != torch.float64 else 2.0**600
    weights = torch.randn(3, 8, dtype=dtype)
    short = torch.randn(3, 8, dtype=dtype)
    gradients = []
    for features, run in ((short, normalize), (short * scale, function if compiled else normalize)):
        leaf = features.clone().requires_grad_()
        (run(leaf) * weights).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert gradients[1].any()
    torch.testing.assert_close(
        gradients[1] * scale, gradients[0], rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_a_long_row_does_not_move_a_bit_of_the_others(dtype: torch.dtype) -> None:
    rows = torch.randn(5, 640, dtype=dtype)
    rows[3] = 0
    results = []
    for features in (rows, torch.cat([rows, spread(dtype)])):
        leaf = features.clone().requires_grad_()
        unit = normalize(leaf)
        (unit * torch.arange(640, dtype=dtype)).sum().backward()
        assert leaf.grad is not None
        results.append((unit.detach()[:5], leaf.grad[:5]))
    plain = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-6)
    assert torch.equal(results[0][0], plain)
    for alone, among in zip(*results, strict=True):
        assert torch.equal(alone, among)
    assert not results[1][1][3].any()


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_unit_rows_say_by_what_they_were_multiplied(dtype: torch.dtype) -> None:
    features = torch.cat([spread(dtype), torch.zeros(1, 640, dtype=dtype)])
    unit, factor = unit_rows(features)
    assert torch.equal(unit, normalize(features))
    assert factor.shape == (5, 1)
    assert factor[-1] == 0
    # Largest first, as the factor of the longest row is below the range of normal numbers.
    scale = features.abs().amax(1, keepdim=True).clamp_min(1)
    torch.testing.assert_close(
        (features / scale) * (factor * scale), unit, rtol=10 * TOLERANCE[dtype], atol=1e-6
    )


def test_normalize_under_vmap() -> None:
    features = torch.stack([spread(torch.float32), torch.randn(4, 640)])
    assert torch.equal(torch.func.vmap(normalize)(features), normalize(features))


def test_values_that_are_not_finite_do_not_become_finite() -> None:
    features = torch.tensor([[torch.inf, 1.0], [torch.nan, 1.0], [3.0, 4.0]])
    unit = normalize(features)
    assert unit[:2].isnan().any(dim=1).all()
    torch.testing.assert_close(unit[2], torch.tensor([0.6, 0.8]))


def test_cosine_equals_the_formula_in_loops() -> None:
    a, b = torch.randn(4, 6), torch.randn(3, 6)
    expected = np.empty((4, 3))
    for i, row in enumerate(a.double().numpy()):
        for j, other in enumerate(b.double().numpy()):
            lengths = sum(x * x for x in row) ** 0.5 * sum(y * y for y in other) ** 0.5
            expected[i, j] = sum(x * y for x, y in zip(row, other, strict=True)) / lengths
    np.testing.assert_allclose(cosine(a, b).numpy(), expected, atol=1e-6)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.01, 1000), st.floats(0.01, 1000))
def test_scaling_features_moves_no_cosine(seed: int, up: float, down: float) -> None:
    a, b = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(cosine(a * up, b * down), cosine(a, b), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_cosine_is_never_below_float32(dtype: torch.dtype) -> None:
    features = torch.randn(3, 4).to(dtype)
    assert cosine(features, features).dtype == (
        torch.float64 if dtype == torch.float64 else torch.float32
    )


def test_cosine_is_not_lowered_by_autocast() -> None:
    a, b = torch.randn(2, 3, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = cosine(a, b)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, cosine(a, b), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_widen_lifts_half_types_and_keeps_the_others(dtype: torch.dtype) -> None:
    features = torch.ones(2, 3)
    assert widen(features.to(dtype)).dtype == torch.float32
    assert widen(features) is features
    assert widen(features.double()).dtype == torch.float64


@pytest.mark.parametrize("function", [normalize, widen, lambda x: cosine(x, x)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool], ids=str)
def test_dtypes_that_are_not_floating_are_refused(
    function: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype
) -> None:
    with pytest.raises(ValueError, match=f"floating dtype, got {dtype}"):
        function(torch.ones(2, 3, dtype=dtype))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_are_found_in_every_piece(
    dtype: torch.dtype, value: float
) -> None:
    features = torch.ones(150_000, 2, dtype=dtype)
    assert non_finite_rows(features) == []
    wrong = [0, 65535, 65536, 149_999]
    features[wrong, 1] = value
    assert non_finite_rows(features) == wrong


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_finite_features_with_a_sum_that_overflows_are_finite(dtype: torch.dtype) -> None:
    features = torch.full((6, 3), torch.finfo(dtype).max, dtype=dtype)
    assert non_finite_rows(features) == []
    features[4, 0] = torch.nan
    assert non_finite_rows(features) == [4]


class Sums(TorchDispatchMode):
    """Notes how many rows were summed at once, and in which dtype."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[int, torch.dtype]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten.sum:
            self.seen.append((len(args[0]), out.dtype))
        return out


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_features_are_widened_in_pieces_and_not_to_float64(dtype: torch.dtype) -> None:
    with Sums() as sums:
        non_finite_rows(torch.ones(100_000, 2, dtype=dtype))
    assert sums.seen == [(65536, torch.float32), (34464, torch.float32)]


def test_check_pair_accepts_two_equal_shapes() -> None:
    check_pair(torch.ones(1, 1), torch.zeros(1, 1), ("a", "b"))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.ones(2, 3), torch.ones(3), r"b must be \[B, D\] and not empty, got \[3\]"),
        (torch.ones(1, 2, 3), torch.ones(2, 3), r"a must be \[B, D\]"),
        (torch.ones(0, 3), torch.ones(0, 3), r"a must be .* not empty, got \[0, 3\]"),
        (torch.ones(2, 0), torch.ones(2, 0), r"not empty, got \[2, 0\]"),
        (torch.ones(2, 3), torch.ones(2, 4), r"a \[2, 3\] and b \[2, 4\] must have the same"),
        (torch.ones(2, 3), torch.ones(1, 3), "the same shape"),
        (torch.ones(2, 3), torch.ones(2, 3).double(), "a is torch.float32 and b is torch.float64"),
        (torch.ones(2, 3).long(), torch.ones(2, 3).long(), "a must have a floating dtype"),
    ],
)
def test_check_pair_names_what_does_not_fit(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_pair(a, b, ("a", "b"))


@pytest.mark.parametrize("function", [normalize, widen, lambda a: cosine(a, a)])
def test_the_way_to_a_tensor_is_one_that_leads_there(function: Callable[[Any], Any]) -> None:
    for numbers in ([1.0], (1.0,)):
        assert own_error(function, numbers).endswith("; torch.tensor(...) makes one of numbers")
    for value in (None, {0: 1.0}, "features", 1.0, np.float32(1), object()):
        message = own_error(function, value)
        assert message.endswith(f"must be a torch tensor, got {type(value).__name__}")


@pytest.mark.parametrize("function", [normalize, widen, lambda a: cosine(a, a)])
def test_what_is_no_tensor_is_named_with_the_way_out(function: Callable[[Any], Any]) -> None:
    with pytest.raises(
        TypeError, match=r"(features|a) must be a torch tensor, got ndarray; .*_numpy\("
    ):
        function(np.ones((2, 3), "f4"))

"""The own target must be closer by a margin."""

from functools import partial
from typing import Any

import by_hand
import pytest
import torch
from by_hand import IDS, assert_equals_by_hand, pair, set_tile
from hypothesis import given, settings
from hypothesis import strategies as st

from fusecomp.losses import TripletMarginLoss
from fusecomp.losses._triplet import _row_keys

MINING: list[Any] = ["hardest", "semi-hard", "all"]


@pytest.mark.parametrize("tile", [2, 7])
@pytest.mark.parametrize("exclude", [(), "target", ("target", "reference")])
@pytest.mark.parametrize("mining", MINING)
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.5])
def test_it_equals_the_formula_in_loops(
    margin: float, mining: Any, exclude: Any, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, tile)
    loss = TripletMarginLoss(margin, mining, exclude=exclude)
    settings = {"margin": margin, "mining": mining, "exclude": exclude}
    for seed in range(3):
        formula = partial(by_hand.triplet_margin, **settings)
        assert_equals_by_hand(loss, formula, pair(seed), **IDS)


@pytest.mark.parametrize("mining", ["hardest", "semi-hard"])
def test_mining_picks_one_negative_a_row(mining: Any) -> None:
    query = torch.tensor([[1.0, 0.0]] * 4)
    angles = torch.tensor([0.5, 0.1, 0.7, 0.6])
    target = torch.stack((angles.cos(), angles.sin()), dim=1).requires_grad_()
    ids = torch.tensor([0, 1, 2, 3])
    loss = TripletMarginLoss(1.0, mining)(query, target, target_ids=ids)
    cosines = angles.cos().tolist()
    picked = {
        "hardest": [(0, 1), (1, 0), (2, 1), (3, 1)],
        "semi-hard": [(0, 3), (1, 0), (3, 2)],  # nothing is further away than row 2's own
    }[mining]
    hinges = [1 - cosines[i] + cosines[j] for i, j in picked]
    assert loss.item() == pytest.approx(sum(hinges) / 4, rel=1e-6)


def twice(target: torch.Tensor) -> torch.Tensor:
    """The same targets, of which the last three are copies of the first, the second and the first.

    0 and -0 are equal numbers.
    """
    rows = target.detach().clone()
    rows[0, 2], rows[1, 3] = 0.0, -0.0
    rows[-3:] = rows[[0, 1, 0]]
    rows[-2, 3] = 0.0
    return rows


@pytest.mark.parametrize("tile", [2, 7])
@pytest.mark.parametrize("margin", [0.2, 1.5])
def test_without_ids_equal_targets_are_no_negatives_of_each_other(
    margin: float, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, tile)
    formula = partial(by_hand.triplet_margin, margin=margin, mining="semi-hard")
    for seed in range(3):
        query, target = pair(seed)
        inputs = query, twice(target).requires_grad_()
        loss = TripletMarginLoss(margin)(*inputs)
        assert loss.item() == pytest.approx(formula(*inputs), rel=1e-10)
        assert loss == TripletMarginLoss(margin)(
            *inputs, target_ids=torch.tensor([0, 1, 2, 3, 0, 1, 0])
        )


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(0, 3), min_size=3, max_size=9),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
def test_rounding_does_not_decide_which_negatives_there_are(
    seed: int, rows: list[int], dtype: torch.dtype, known: bool
) -> None:
    """A batch holds targets several times; with ids, their features differ in the last bits."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(len(rows), 16, generator=generator, dtype=dtype)
    target = torch.randn(4, 16, generator=generator, dtype=dtype)[rows]
    ids = {"target_ids": torch.tensor(rows)} if known else {}
    order = torch.randperm(len(rows), generator=generator)
    loss = TripletMarginLoss(0.7)
    moved = {name: value[order] for name, value in ids.items()}
    torch.testing.assert_close(loss(query[order], target[order], **moved), loss(query, target))
    last_bits = 1 + 4 * torch.finfo(dtype).eps * torch.randn(target.shape, generator=generator)
    if known:
        nearly = target * last_bits.to(dtype)
        torch.testing.assert_close(loss(query, nearly, **ids), loss(query, target, **ids))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_have_one_key_if_they_are_equal(dtype: torch.dtype) -> None:
    """Numbers with few digits, whose bits have a pattern."""
    few = torch.tensor([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0])
    rows = few[torch.randint(0, 8, (2000, 4), generator=torch.Generator().manual_seed(0))].to(dtype)
    keys = _row_keys(rows)
    _, expected = (rows + 0.0).unique(dim=0, return_inverse=True)
    _, found = keys.unique(return_inverse=True)
    assert len(keys.unique()) == len(expected.unique())
    assert torch.equal(found[:, None] == found, expected[:, None] == expected)


def test_compiled_without_ids_and_a_graph_break_it_is_the_same() -> None:
    torch._dynamo.reset()
    loss = TripletMarginLoss(0.7)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    query, target = pair()
    target = twice(target)
    torch.testing.assert_close(compiled(query, target), loss(query, target))


@pytest.mark.parametrize("mining", MINING)
def test_a_row_that_is_not_finite_shows_in_the_loss(mining: Any) -> None:
    query, target = (x.detach() for x in pair())
    query[3, 1] = torch.nan
    assert TripletMarginLoss(0.2, mining)(query, target).isnan()


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_a_bad_margin_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=f"margin must be finite and not negative, got {margin}"):
        TripletMarginLoss(margin)


def test_unknown_mining_is_refused() -> None:
    mining: Any = "semihard"
    with pytest.raises(ValueError, match="unknown mining 'semihard'; valid: 'hardest', 'semi"):
        TripletMarginLoss(mining=mining)


def test_it_prints_its_settings() -> None:
    assert repr(TripletMarginLoss(0.3, "all")) == "TripletMarginLoss(margin=0.3, mining='all')"

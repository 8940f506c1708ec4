"""The own target must be closer by a margin."""

from functools import partial
from typing import Any

import by_hand
import pytest
import torch
from by_hand import IDS, assert_equals_by_hand, pair, set_tile

from fusecomp.losses import TripletMargin

MINING: list[Any] = ["hardest", "semi-hard", "all"]


@pytest.mark.parametrize("tile", [2, 7])
@pytest.mark.parametrize("exclude", [(), "target", ("target", "reference")])
@pytest.mark.parametrize("mining", MINING)
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.5])
def test_it_equals_the_formula_in_loops(
    margin: float, mining: Any, exclude: Any, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, tile)
    loss = TripletMargin(margin, mining, exclude=exclude)
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
    loss = TripletMargin(1.0, mining)(query, target, target_ids=ids)
    cosines = angles.cos().tolist()
    picked = {
        "hardest": [(0, 1), (1, 0), (2, 1), (3, 1)],
        "semi-hard": [(0, 3), (1, 0), (3, 2)],  # nothing is further away than row 2's own
    }[mining]
    hinges = [1 - cosines[i] + cosines[j] for i, j in picked]
    assert loss.item() == pytest.approx(sum(hinges) / 4, rel=1e-6)


@pytest.mark.parametrize("mining", MINING)
def test_a_row_that_is_not_finite_shows_in_the_loss(mining: Any) -> None:
    query, target = (x.detach() for x in pair())
    query[3, 1] = torch.nan
    assert TripletMargin(0.2, mining)(query, target).isnan()


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_a_bad_margin_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=f"margin must be finite and not negative, got {margin}"):
        TripletMargin(margin)


def test_unknown_mining_is_refused() -> None:
    mining: Any = "semihard"
    with pytest.raises(ValueError, match="unknown mining 'semihard'; valid: 'hardest', 'semi"):
        TripletMargin(mining=mining)


def test_it_prints_its_settings() -> None:
    assert repr(TripletMargin(0.3, "all")) == "TripletMargin(margin=0.3, mining='all')"

"""A bank or a queue in every loss that has candidates."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import by_hand
import pytest
import torch
from by_hand import DIM, IDS, assert_equals_by_hand, features, pair, set_tile
from torch import Tensor, nn

from fusecomp.losses import (
    Bank,
    HardNegativeNCE,
    InfoNCE,
    MultiPositiveNCE,
    Queue,
    SigmoidLoss,
    TripletMarginLoss,
)

Memory = Bank | Queue
EXCLUDE: Any = ("target", "reference")
# How each is made with a memory, and its formula in loops.
LOSSES: dict[str, tuple[Callable[[Any], nn.Module], Callable[..., float]]] = {
    "InfoNCE": (
        lambda memory: InfoNCE(0.3, symmetric=True, memory=memory),
        partial(by_hand.info_nce, temperature=0.3, symmetric=True),
    ),
    "HardNegativeNCE": (
        lambda memory: HardNegativeNCE(0.3, 0.5, 0.2, exclude=EXCLUDE, memory=memory),
        partial(by_hand.hard_negative, temperature=0.3, alpha=0.5, beta=0.2, exclude=EXCLUDE),
    ),
    "MultiPositiveNCE": (
        lambda memory: MultiPositiveNCE(0.3, memory=memory),
        partial(by_hand.multi_positive, temperature=0.3),
    ),
    "SigmoidLoss": (
        lambda memory: SigmoidLoss(0.3, -1.0, exclude="target", memory=memory),
        partial(by_hand.sigmoid, temperature=0.3, bias=-1.0, exclude="target"),
    ),
    "hardest": (
        lambda memory: TripletMarginLoss(0.4, "hardest", memory=memory),
        partial(by_hand.triplet_margin, margin=0.4, mining="hardest"),
    ),
    "semi-hard": (
        lambda memory: TripletMarginLoss(0.4, "semi-hard", exclude="reference", memory=memory),
        partial(by_hand.triplet_margin, margin=0.4, mining="semi-hard", exclude=("reference",)),
    ),
    "all": (
        lambda memory: TripletMarginLoss(0.4, "all", memory=memory),
        partial(by_hand.triplet_margin, margin=0.4, mining="all"),
    ),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
# Rows 1 and 5 have their targets outside the bank; 20 and 99 are references.
BANK_IDS = torch.tensor([13, 20, 10, 99, 16, 12])
STORED = 3 * features(2, 6, DIM)


def dot(query: Tensor, target: Tensor) -> Tensor:
    """A similarity that lengths matter to; small, so that exponentials stay in range."""
    return query @ target.T / 10


def dot_by_hand(a: Any, b: Any) -> float:
    total: float = sum(x * y for x, y in zip(a, b, strict=True))
    return total / 10


@pytest.fixture(params=["cosine", "similarity"])
def given(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What goes to the loss with the batch; the loops compare alike."""
    if request.param == "cosine":
        return {}
    monkeypatch.setattr(by_hand, "cosine", dot_by_hand)
    return {"similarity": dot}


class With(nn.Module):
    """A loss that gets the same similarity in each call."""

    def __init__(self, loss: nn.Module, given: dict[str, Any]) -> None:
        super().__init__()
        self.loss, self.given = loss, given

    def forward(self, query: Tensor, target: Tensor, **ids: Tensor) -> Tensor:
        value: Tensor = self.loss(query, target, **ids, **self.given)
        return value


@pytest.mark.parametrize("tile", [3, 7])
@every_loss
def test_a_bank_equals_the_formula_in_loops(
    name: str, tile: int, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, tile)
    make, formula = LOSSES[name]
    bank = dict(zip(BANK_IDS.tolist(), by_hand.numbers(STORED), strict=True))
    loss = With(make(Bank(STORED, BANK_IDS)), given)
    assert_equals_by_hand(loss, partial(formula, bank=bank), pair(), **IDS)


@pytest.mark.parametrize("size", [2, 20])
@every_loss
def test_a_queue_equals_a_list(name: str, size: int, given: dict[str, Any]) -> None:
    make, formula = LOSSES[name]
    loss = With(make(Queue(size, DIM)).double(), given)
    held: list[tuple[int, list[float]]] = []
    for number in range(4):
        ids = torch.arange(3) + 2 * number
        known = {"target_ids": ids, "reference_ids": ids + 1}
        query, target = (x.requires_grad_() for x in 2 * features(10 + number, 2, 3, DIM))
        now = partial(formula, queue=tuple(held))
        assert_equals_by_hand(copy.deepcopy(loss), now, (query, target), **known)
        loss(query, target, **known)
        held += zip(ids.tolist(), by_hand.numbers(target), strict=True)
        held = held[-size:]


def test_without_ids_a_copy_in_the_queue_is_no_negative() -> None:
    loss = TripletMarginLoss(0.4, memory=Queue(20, DIM)).double()
    query, target = pair()
    torch.testing.assert_close(loss(query, target), loss(query, target))


@every_loss
def test_one_row_with_a_bank_is_enough(name: str) -> None:
    query, target = features(0, 2, 1, DIM)
    ids = {"target_ids": torch.tensor([77]), "reference_ids": torch.tensor([78])}
    assert LOSSES[name][0](Bank(STORED, BANK_IDS))(query, target, **ids).isfinite()
    with pytest.raises(ValueError, match="at least 2 rows"):
        LOSSES[name][0](None)(query, target, **ids)


@every_loss
def test_a_bank_needs_ids_and_its_own_width(name: str) -> None:
    loss = LOSSES[name][0](Bank(STORED, BANK_IDS))
    with pytest.raises(ValueError, match=r"needs? (target_ids|reference_ids)"):
        loss(*pair())
    with pytest.raises(ValueError, match=r"target \[7, 6\] does not fit Bank\(6, dim=5\)"):
        loss(*features(0, 2, 7, DIM + 1), **IDS)
    with pytest.raises(ValueError, match=r"memory must be a losses.Bank or Queue, got 100"):
        LOSSES[name][0](100)


def test_a_row_of_zeros_stays_one() -> None:
    bank = Bank(torch.zeros(1, DIM), torch.tensor([7]))
    assert not bank.rows(dot).any()


@every_loss
def test_it_compiles_without_a_graph_break(name: str) -> None:
    torch._dynamo.reset()
    loss = LOSSES[name][0](Queue(5, DIM)).double()
    compiled = torch.compile(copy.deepcopy(loss), fullgraph=True, backend="aot_eager")
    for _ in range(2):
        query, target = pair()
        values = [way(query, target, **IDS) for way in (loss, compiled)]
        torch.testing.assert_close(*values)
        torch.testing.assert_close(*(torch.autograd.grad(v, (query, target)) for v in values))

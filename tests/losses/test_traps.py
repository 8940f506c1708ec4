"""What goes wrong in contrastive losses, one test a trap, named after it.

Elsewhere: half precision, autocast, compiling, second derivatives, repeated backward, gradients
from above, and ids of every dtype are in the contract of all losses; the weights of hard negatives
beside their formula; gathering and averaging over processes with the trainer. Rows cannot be
weighted, and losses not be had before the mean, so a gradient computed early cannot be wrong there.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import by_hand
import pytest
import torch
from by_hand import DIM, IDS, ROWS, assert_equals_by_hand, features, pair, set_tile
from torch import Tensor, nn
from torch.nn import functional as F

from fusecomp.losses import (
    Bank,
    DistillationLoss,
    HardNegativeNCE,
    InfoNCE,
    LearnableTemperature,
    MultiPositiveNCE,
    Queue,
    SigmoidLoss,
    TripletMarginLoss,
)

# Losses of logits by temperature, with their formulas in loops.
SCALED: dict[str, tuple[Callable[..., nn.Module], Callable[..., float]]] = {
    "InfoNCE": (InfoNCE, by_hand.info_nce),
    "InfoNCE, symmetric": (
        partial(InfoNCE, symmetric=True),
        partial(by_hand.info_nce, symmetric=True),
    ),
    "HardNegativeNCE": (
        partial(HardNegativeNCE, alpha=1.0, beta=0.5),
        partial(by_hand.hard_negative, alpha=1.0, beta=0.5),
    ),
    "MultiPositiveNCE": (MultiPositiveNCE, by_hand.multi_positive),
    "SigmoidLoss": (partial(SigmoidLoss, bias=-1.0), partial(by_hand.sigmoid, bias=-1.0)),
}
# Those whose rows may leave candidates out.
EXCLUDING: dict[str, Callable[..., nn.Module]] = {
    "InfoNCE": InfoNCE,
    "InfoNCE, symmetric": partial(InfoNCE, 0.05, True),
    "InfoNCE, symmetric, smoothing": partial(InfoNCE, 0.05, True, label_smoothing=0.1),
    "HardNegativeNCE": HardNegativeNCE,
    "HardNegativeNCE, flat": partial(HardNegativeNCE, beta=0.0),
    "TripletMarginLoss": partial(TripletMarginLoss, 2.5),
    "TripletMarginLoss, hardest": partial(TripletMarginLoss, 2.5, "hardest"),
    "TripletMarginLoss, all": partial(TripletMarginLoss, 2.5, "all"),
}
excluding = pytest.mark.parametrize("name", EXCLUDING)
scaled = pytest.mark.parametrize("name", SCALED)


def learning(*tensors: Tensor, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("scale", [1, 20, 100])
@pytest.mark.parametrize("tile", [1, 7, 10, 11, 12, 22])
@scaled
def test_tile_exactness(name: str, tile: int, scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven rows, an odd width, excluded columns, a last tile that is not full."""
    set_tile(monkeypatch, tile)
    make, formula = SCALED[name]
    settings: dict[str, Any] = {} if name == "MultiPositiveNCE" else {"exclude": "target"}
    ids = torch.tensor([0, 1, 2, 0, 4, 5, 1, 7, 8, 0, 10])
    inputs = learning(*features(0, 2, 11, 5))
    expected = partial(formula, temperature=1 / scale, **settings)
    assert_equals_by_hand(make(1 / scale, **settings), expected, inputs, target_ids=ids)


@pytest.mark.parametrize("tile", [1, 7, 10, 11, 12, 22])
@pytest.mark.parametrize("symmetric", [False, True])
def test_tile_exactness_where_candidates_are_more_than_rows(
    tile: int, symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, tile)
    inputs = learning(*features(0, 2, 11, 5), features(1, 11, 3, 5))

    def formula(query: Tensor, target: Tensor, negatives: Tensor) -> float:
        return by_hand.info_nce(query, target, 0.05, symmetric=symmetric, negatives=negatives)

    assert_equals_by_hand(InfoNCE(0.05, symmetric), formula, inputs)


CONVERGED: dict[str, Callable[[Tensor], nn.Module]] = {
    "InfoNCE": lambda target: InfoNCE(0.05),
    "InfoNCE, symmetric": lambda target: InfoNCE(0.05, True),
    "InfoNCE, learning": lambda target: InfoNCE(LearnableTemperature(0.05)),
    "InfoNCE, bank": lambda target: InfoNCE(0.05, memory=Bank(target, torch.arange(32))),
    "HardNegativeNCE": lambda target: HardNegativeNCE(0.05),
    "MultiPositiveNCE": lambda target: MultiPositiveNCE(0.05),
    "SigmoidLoss": lambda target: SigmoidLoss(0.025, bias=-20.0),
}


@pytest.mark.parametrize("name", CONVERGED)
def test_converged_regime_gradient_and_value(name: str) -> None:
    """At a loss near 1e-8, float32 against float64; neither the value may fall below zero."""
    target = torch.linalg.qr(features(0, 40, 32)).Q.T.float()
    query = target + 0.06 * features(1, 32, 40).float() / 40**0.5
    results = []
    for dtype in (torch.float32, torch.float64):
        loss = CONVERGED[name](target).to(dtype)
        leaves = learning(query, dtype=dtype)
        value = loss(leaves[0], target.to(dtype), target_ids=torch.arange(32))
        inputs = (*leaves, *(p for p in loss.parameters() if p.requires_grad))
        results.append([value.detach(), *torch.autograd.grad(value, inputs)])
    for ours, exact in zip(*results, strict=True):
        assert (ours - exact).norm() < 1e-4 * exact.norm()
    assert 1e-9 < results[1][0] < 1e-6


def test_loss_value_near_zero_does_not_cancel() -> None:
    target = torch.eye(8)
    for shift in (0.0, 1e-3, 1e-2, 0.05):
        query = target + shift
        for symmetric in (False, True):
            loss = InfoNCE(0.05, symmetric)
            value, exact = loss(query, target), loss(query.double(), target.double())
            assert value >= 0
            assert value.item() == pytest.approx(exact.item(), rel=1e-5)


@excluding
def test_fully_masked_row_has_no_loss_and_a_gradient_of_zero(name: str) -> None:
    query, target = pair()
    ids = torch.full((ROWS,), 5)
    loss = EXCLUDING[name](exclude="target")(query, target, target_ids=ids)
    assert loss == 0
    for gradient in torch.autograd.grad(loss, (query, target)):
        assert not gradient.any()


@excluding
def test_one_fully_masked_row_among_others_leaves_them_as_they_are(name: str) -> None:
    """Row 0's reference is every other target; the others see each other and row 0's target."""
    query, target = pair()
    target_ids = torch.tensor([0, 1, 1, 1, 1, 1, 1])
    reference_ids = torch.tensor([1, 2, 2, 2, 2, 2, 2])
    loss = EXCLUDING[name](exclude="reference")
    value = loss(query, target, target_ids=target_ids, reference_ids=reference_ids)
    gradients = torch.autograd.grad(value, (query, target))
    assert value.isfinite()
    assert value > 0
    assert all(gradient.isfinite().all() for gradient in gradients)
    if "symmetric" not in name:
        assert not gradients[0][0].any()


@excluding
def test_same_target_false_negatives_get_no_gradient(name: str) -> None:
    """Rows 0 and 4 have one target id: what query 0 learns does not depend on target 4."""
    loss = EXCLUDING[name](exclude="target")
    gradients = []
    for twin in range(2):
        query, target = learning(*pair())
        with torch.no_grad():
            target[4] = features(twin, DIM)
        value = loss(query, target, target_ids=IDS["target_ids"])
        gradients.append(torch.autograd.grad(value, query)[0])
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert not torch.equal(gradients[0][4], gradients[1][4])


def test_same_target_false_negatives_are_distinct_targets_once() -> None:
    """For a row with a twin, excluding is classification among the batch's distinct targets."""
    query, distinct = learning(features(0, ROWS, DIM), features(1, ROWS - 1, DIM))
    labels = torch.tensor([0, 1, 2, 3, 0, 4, 5])
    excluded = InfoNCE(0.1, exclude="target")(query, distinct[labels], target_ids=labels)
    logits = F.normalize(query, dim=1) @ F.normalize(distinct, dim=1).T / 0.1
    (ours,) = torch.autograd.grad(excluded, query)
    (expected,) = torch.autograd.grad(F.cross_entropy(logits, labels), query)
    torch.testing.assert_close(ours[[0, 4]], expected[[0, 4]])
    # The others meet the twins twice.
    assert not torch.isclose(ours[1], expected[1]).all()


@pytest.mark.parametrize(
    ("exclude", "candidates"),
    [((), 4), ("target", 4), ("reference", 3), (("target", "reference"), 3)],
)
def test_reference_that_is_target_of_another_row(exclude: Any, candidates: int) -> None:
    """A -> B and B -> A, C -> D, E -> F: with equal cosines, the loss counts the candidates."""
    a, b, c, d, e, f = range(6)
    ids = {"target_ids": torch.tensor([b, a, d, f]), "reference_ids": torch.tensor([a, b, c, e])}
    query, target = torch.ones(2, 4, 3)
    loss = InfoNCE(exclude=exclude)(query, target, **ids)
    # Only the rows of the cycle lose one.
    expected = (2 * math.log(candidates) + 2 * math.log(4)) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_object_identity_has_no_meaning() -> None:
    query, target = pair()
    ids = torch.tensor([0, 1, 2, 3, 0, 5, 6])
    loss = InfoNCE(0.1, exclude=("target", "reference"))
    same = loss(query, target, target_ids=ids, reference_ids=ids)
    assert torch.equal(same, loss(query, target, target_ids=ids, reference_ids=ids.clone()))
    assert same > 0
    alone = InfoNCE(0.1)
    assert torch.equal(alone(query, query), alone(query, query.clone()))


def test_int_labels_do_not_wrap() -> None:
    """260 and 4 are equal in eight bits."""
    query, target = pair()
    loss = InfoNCE(0.1, exclude="target")
    ids = torch.tensor([4, 260, 1, 2, 3, 5, 6])
    assert torch.equal(
        loss(query, target, target_ids=ids.to(torch.int16)),
        loss(query, target, target_ids=torch.arange(ROWS)),
    )


def test_empty_batch_and_single_candidate_raise() -> None:
    loss = InfoNCE()
    with pytest.raises(ValueError, match="not empty"):
        loss(torch.ones(0, 3), torch.ones(0, 3))
    with pytest.raises(ValueError, match="a single candidate gives no gradient"):
        loss(torch.ones(1, 3), torch.ones(1, 3))


def test_fp16_overflow() -> None:
    """Unnormalised features of length 30: 100 x 900 is beyond half precision."""
    unit = F.normalize(features(0, 2, 16, 8), dim=-1)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        query, target = (30 * unit).to(dtype)
        exact = InfoNCE()(query.double(), target.double())
        torch.testing.assert_close(InfoNCE()(query, target).double(), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@scaled
def test_zero_vector_row_has_a_finite_loss_and_gradient(
    name: str, dtype: torch.dtype, side: int
) -> None:
    both = features(0, 2, 4, 6)
    both[side, 2] = 0
    query, target = learning(*both, dtype=dtype)
    loss = SCALED[name][0](0.01)(query, target, target_ids=torch.arange(4))
    gradients = torch.autograd.grad(loss, (query, target))
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not gradients[side][2].any()


@scaled
def test_bf16_logits_are_never_made(name: str) -> None:
    """Under autocast the gradient at scale 100 is off by what bfloat16 inputs cost, not logits."""
    query, target = (x.bfloat16() for x in features(0, 2, 64, 32))
    ids = torch.arange(64)
    exact_query, inside_query = learning(query), learning(query, dtype=torch.bfloat16)
    loss = SCALED[name][0](0.01)
    (exact,) = torch.autograd.grad(loss(*exact_query, target.double(), target_ids=ids), exact_query)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(*inside_query, target, target_ids=ids)
    (inside,) = torch.autograd.grad(value, inside_query)
    assert (inside.double() - exact).norm() < 5e-3 * exact.norm()


@scaled
def test_the_gradient_of_a_learnable_temperature_is_exact(name: str) -> None:
    make, formula = SCALED[name]
    query, target = (x.detach() for x in pair())
    ids = IDS["target_ids"]
    temperature = LearnableTemperature(0.2).double()
    value = make(temperature)(query, target, target_ids=ids)
    (gradient,) = torch.autograd.grad(value, temperature.log_scale)

    def by_scale(log_scale: Tensor) -> float:
        return formula(query, target, 1 / log_scale.exp().item(), target_ids=ids.tolist())

    point = temperature.log_scale.detach()
    expected = by_hand.slope(by_scale, [point], [torch.ones(())])
    assert gradient.item() == pytest.approx(expected, rel=1e-6)


def test_learnable_scale_stays_below_its_limit_and_comes_down_again() -> None:
    target = 3 + torch.eye(4)  # so close together that the loss is far from 0 at the limit
    loss = InfoNCE(LearnableTemperature(0.02))
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    scales = []
    for step in range(70):
        # Right pairs push the scale up, wrong ones down.
        query = target if step < 50 else target.roll(1, 0)
        optimizer.zero_grad()
        loss(query, target).backward()
        scales.append(scale_of(loss))
        optimizer.step()
    assert max(scales) <= 100 * (1 + 1e-6)
    assert scales[49] == pytest.approx(100)
    assert scales[-1] < 50


def scale_of(loss: nn.Module) -> float:
    temperature: Any = loss.temperature
    return float(temperature.scale().item())


def test_scale_has_no_dimensions_so_that_decay_can_leave_it_out() -> None:
    for loss in (
        InfoNCE(LearnableTemperature()),
        HardNegativeNCE(LearnableTemperature()),
        SigmoidLoss(),
    ):
        assert all(parameter.ndim == 0 for parameter in loss.parameters())


NOT_FINITE: dict[str, Callable[[], nn.Module]] = {
    "InfoNCE": lambda: InfoNCE(),
    "InfoNCE, symmetric": lambda: InfoNCE(symmetric=True, exclude="target", label_smoothing=0.1),
    "InfoNCE, queue": lambda: InfoNCE(memory=Queue(4, DIM)),
    "HardNegativeNCE": HardNegativeNCE,
    "MultiPositiveNCE": MultiPositiveNCE,
    "SigmoidLoss": SigmoidLoss,
    "TripletMarginLoss": TripletMarginLoss,
    "TripletMarginLoss, all": lambda: TripletMarginLoss(mining="all"),
    "DistillationLoss": lambda: DistillationLoss(
        features(3, ROWS, 4),
        torch.stack((IDS["reference_ids"], IDS["target_ids"]), dim=1),
        features(4, ROWS - 1, 4),
        IDS["target_ids"].unique(),
    ),
}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", NOT_FINITE)
def test_one_nan_feature_shows_in_the_loss(name: str, side: int, value: float) -> None:
    """A loss that hid it would let a broken row train; the trainer looks at the loss."""
    both = [x.detach().clone() for x in pair()]
    both[side][3, 1] = value
    assert not NOT_FINITE[name]()(*both, **IDS).isfinite()


def test_gather_order_with_negatives_does_not_matter() -> None:
    """Two halves of a batch, in either order, with two negatives a row."""
    query, target = pair()
    negatives = features(1, ROWS, 2, DIM)
    order = torch.tensor([4, 5, 6, 0, 1, 2, 3])
    loss = InfoNCE(0.1)(query, target, negatives=negatives)
    moved = InfoNCE(0.1)(query[order], target[order], negatives=negatives[order])
    torch.testing.assert_close(moved, loss)


def test_per_sample_gradients_are_refused() -> None:
    """The function has no rule for torch.func; it says so instead of being wrong."""
    query, target = (x.detach() for x in pair())
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.grad(InfoNCE())(query, target)

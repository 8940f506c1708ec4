"""Random losses, settings, ids, tiles and dtypes, each held to its formula in loops."""

from collections.abc import Callable
from functools import partial
from typing import Any

import by_hand
import pytest
import torch
from by_hand import features, numbers, set_tile, slope
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fusecomp.losses import (
    Bank,
    CosineAlignmentLoss,
    DistillationLoss,
    HardNegativeNCE,
    InfoNCE,
    MultiPositiveNCE,
    Queue,
    SigmoidLoss,
    TripletMarginLoss,
)

EXACT = (torch.float64, torch.float32)
DTYPES = (*EXACT, torch.bfloat16, torch.float16)
temperatures = st.sampled_from([0.01, 0.02, 0.07, 0.3, 1.0, 5.0])
excludes = st.sampled_from([(), ("target",), ("reference",), ("target", "reference")])
# A loss, its formula, the keywords of both, and the temperature by which errors grow.
Case = tuple[nn.Module, Callable[..., float], dict[str, Tensor], float]


@st.composite
def info_nce(draw: Any, ids: dict[str, Tensor], dim: int) -> Case:
    rows = len(ids["target_ids"])
    shared: dict[str, Any] = {
        "temperature": draw(temperatures),
        "symmetric": draw(st.booleans()),
        "exclude": draw(excludes),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 0.6])),
        "margin": draw(st.sampled_from([0.0, 0.2])),
    }
    further: dict[str, Any] = {}
    memory: Bank | Queue | None = None
    kind = draw(st.sampled_from(["none", "bank", "queue"]))
    seed, size = draw(st.integers(0, 99)), draw(st.integers(1, 6))
    stored = features(seed, size, dim)
    if kind == "bank" and not shared["symmetric"]:
        stored_ids = torch.arange(size) + draw(st.integers(0, 5))
        memory = Bank(stored, stored_ids)
        further["bank"] = dict(zip(stored_ids.tolist(), numbers(stored), strict=True))
    elif kind == "queue":
        stored_ids = torch.arange(size) % 4
        memory = Queue(draw(st.integers(size, 9)), dim).double()
        memory.push(stored, stored_ids, loss=torch.tensor(0.0))
        further["queue"] = tuple(zip(stored_ids.tolist(), numbers(stored), strict=True))
    given = dict(ids)
    if draw(st.booleans()):
        further["negatives"] = given["negatives"] = features(seed + 1, rows, 2, dim)
        given["negative_ids"] = torch.arange(2 * rows).reshape(rows, 2) % 5
    event(f"InfoNCE, {kind}, {'symmetric' if shared['symmetric'] else 'one way'}")
    formula = partial(by_hand.info_nce, **shared, **further)
    return InfoNCE(**shared, memory=memory).eval(), formula, given, shared["temperature"]


@st.composite
def other(draw: Any, ids: dict[str, Tensor]) -> Case:
    temperature, exclude = draw(temperatures), draw(excludes)
    kind = draw(st.sampled_from(["hard", "sigmoid", "multi", "triplet", "distill", "cosine"]))
    event(kind)
    if kind == "hard":
        shared: dict[str, Any] = {
            "temperature": temperature,
            "alpha": draw(st.sampled_from([0.0, 0.5, 1.0])),
            "beta": draw(st.sampled_from([0.0, 0.25, 1.0])),
            "exclude": exclude,
        }
        formula: Callable[..., float] = partial(by_hand.hard_negative, **shared)
        return HardNegativeNCE(**shared), formula, ids, temperature / 3
    if kind == "sigmoid":
        shared = {"bias": draw(st.sampled_from([-10.0, 0.0, 2.5])), "exclude": exclude}
        shared["temperature"] = temperature
        return SigmoidLoss(**shared), partial(by_hand.sigmoid, **shared), ids, temperature / 10
    if kind == "multi":
        formula = partial(by_hand.multi_positive, temperature=temperature)
        return MultiPositiveNCE(temperature), formula, ids, temperature
    if kind == "triplet":
        mining = draw(st.sampled_from(["hardest", "semi-hard", "all"]))
        shared = {"margin": 0.3, "mining": mining, "exclude": exclude}
        return TripletMarginLoss(**shared), partial(by_hand.triplet_margin, **shared), ids, 1.0
    if kind == "distill":
        return distill(ids, temperature, draw(temperatures))
    return CosineAlignmentLoss(), by_hand.cosine_alignment, ids, 1.0


def distill(ids: dict[str, Tensor], temperature: float, teacher_temperature: float) -> Case:
    """A teacher that knows the pairs of the batch."""
    both = torch.stack((ids["reference_ids"], ids["target_ids"]), dim=1).unique(dim=0)
    targets = ids["target_ids"].unique()
    queries, images = features(7, len(both), 3), features(8, len(targets), 3)
    shared: dict[str, Any] = {
        "temperature": temperature,
        "teacher_temperature": teacher_temperature,
    }
    formula = partial(
        by_hand.distill,
        teacher_queries=dict(zip(map(tuple, both.tolist()), numbers(queries), strict=True)),
        teacher_targets=dict(zip(targets.tolist(), numbers(images), strict=True)),
        **shared,
    )
    return DistillationLoss(queries, both, images, targets, **shared), formula, ids, temperature


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_loss_equals_its_formula(data: st.DataObject) -> None:
    rows, dim = data.draw(st.integers(2, 9)), data.draw(st.integers(2, 6))
    few = st.lists(st.integers(0, 8), min_size=rows, max_size=rows)
    ids = {name: torch.tensor(data.draw(few)) for name in ("target_ids", "reference_ids")}
    dtype, tile = data.draw(st.sampled_from(DTYPES)), data.draw(st.integers(1, 12))
    loss, formula, keywords, temperature = data.draw(st.one_of(info_nce(ids, dim), other(ids)))
    if isinstance(loss, TripletMarginLoss) and dtype not in EXACT:
        dtype = torch.float32  # ties between rounded features have no order
    pair = features(data.draw(st.integers(0, 999)), 2, rows, dim)
    length = data.draw(st.sampled_from([0.01, 1.0, 100.0]))
    query, target = ((length * x).to(dtype).requires_grad_() for x in pair)
    cast = {name: x.to(dtype) if name == "negatives" else x for name, x in keywords.items()}
    with pytest.MonkeyPatch.context() as patch:
        set_tile(patch, tile)
        value = loss(query, target, **cast)
    plain = {name: x if name == "negatives" else x.tolist() for name, x in cast.items()}
    expected = partial(formula, **plain)
    error = 1e-11 if dtype == torch.float64 else 1e-6
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    close = pytest.approx(expected(query, target), rel=10 * error, abs=error / temperature)
    assert value.item() == close
    if dtype in EXACT:
        # A quotient of differences is good to 1e-8.
        check_slope(value, expected, (query, target), 10 * max(error, 1e-8) / temperature**2)


def check_slope(
    value: Tensor, formula: Callable[..., float], inputs: tuple[Tensor, ...], error: float
) -> None:
    """The loss is as steep as the formula, in a direction as long as the features."""
    gradients = torch.autograd.grad(value, inputs)
    directions = [
        features(5 + number, *x.shape) * x.detach().double().norm(dim=1, keepdim=True)
        for number, x in enumerate(inputs)
    ]
    along = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    assert along == pytest.approx(slope(formula, inputs, directions), rel=1e-3, abs=error)

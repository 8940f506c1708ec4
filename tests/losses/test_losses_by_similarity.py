"""Losses of a fusion's own similarity, against autograd on the whole matrix."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusecomp.fusions import ARTEMIS
from fusecomp.losses import (
    CosineAlignmentLoss,
    DistillationLoss,
    HardNegativeNCE,
    InfoNCE,
    LearnableTemperature,
    MultiPositiveNCE,
    SigmoidLoss,
    TripletMarginLoss,
    _tiles,
)

ROWS, DIM = 13, 6


def late(query: Tensor, target: Tensor) -> Tensor:
    """The sum of the best products of two query vectors with two of each image."""
    parts, rows = query.unflatten(1, (3, 3)), target.unflatten(1, (2, 3))
    return torch.einsum("qad,nbd->qnab", parts, rows).amax(dim=3).sum(dim=2)


SIMILARITIES: dict[str, tuple[int, Any]] = {
    "MaxSim": (9, late),
    "ARTEMIS": (4 * DIM, ARTEMIS(DIM).similarity),
}


@pytest.fixture(params=SIMILARITIES)
def batch(request: pytest.FixtureRequest) -> tuple[Any, Tensor, Tensor]:
    width, similarity = SIMILARITIES[request.param]
    generator = torch.Generator().manual_seed(0)
    query, target = (
        torch.randn(ROWS, columns, generator=generator, dtype=torch.float64)
        for columns in (width, DIM)
    )
    return similarity, query.requires_grad_(), target.requires_grad_()


def written_out(
    similarity: Any, query: Tensor, target: Tensor, scale: Tensor, **options: Any
) -> Tensor:
    """Cross entropy of the whole matrix, by torch's own functions."""
    scores = similarity(query, target)
    scores = scores - options.get("margin", 0.0) * torch.eye(ROWS, dtype=torch.float64)
    logits, own = scores * scale, torch.arange(ROWS)
    if (ids := options.get("ids")) is not None:
        same = (ids[:, None] == ids[None, :]) & ~torch.eye(ROWS, dtype=torch.bool)
        logits = logits.masked_fill(same, -torch.inf)
    if options.get("symmetric"):
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    return F.cross_entropy(logits, own, label_smoothing=options.get("smoothing", 0.0))


@pytest.mark.parametrize("rows_of_a_tile", [4, 1024])
@pytest.mark.parametrize(
    "options",
    [{}, {"symmetric": True}, {"smoothing": 0.2}, {"margin": 0.3}, {"ids": torch.arange(ROWS) % 7}],
    ids=["plain", "symmetric", "smoothing", "margin", "excluded"],
)
def test_value_and_gradients_are_those_of_the_whole_matrix(
    batch: tuple[Any, Tensor, Tensor],
    options: dict[str, Any],
    rows_of_a_tile: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_tiles, "_CPU_TILE", (rows_of_a_tile, 1))
    similarity, query, target = batch
    loss = InfoNCE(
        LearnableTemperature(0.5),
        options.get("symmetric", False),
        exclude="target" if "ids" in options else (),
        label_smoothing=options.get("smoothing", 0.0),
        margin=options.get("margin", 0.0),
    ).double()
    parts = [query, target, *loss.parameters()]
    ids = {"target_ids": options["ids"]} if "ids" in options else {}
    value = loss(query, target, similarity=similarity, **ids)
    assert isinstance(loss.temperature, LearnableTemperature)
    expected = written_out(similarity, query, target, loss.temperature.scale(), **options)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(value, parts), torch.autograd.grad(expected, parts), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_side_that_does_not_learn_gets_no_gradient(batch: tuple[Any, Tensor, Tensor]) -> None:
    similarity, query, target = batch
    InfoNCE(0.5)(query, target.detach(), similarity=similarity).backward()
    assert query.grad is not None
    assert query.grad.any()
    frozen = InfoNCE(0.5)(query.detach(), target.detach(), similarity=similarity)
    assert not frozen.requires_grad


def test_negatives_are_compared_by_it_too(batch: tuple[Any, Tensor, Tensor]) -> None:
    similarity, query, target = batch
    negatives = torch.randn(ROWS, 2, DIM, dtype=torch.float64).requires_grad_()
    value = InfoNCE(0.5)(query, target, negatives=negatives, similarity=similarity)
    scores = similarity(query, torch.cat((target, negatives.flatten(0, 1))))
    expected = F.cross_entropy(scores / 0.5, torch.arange(ROWS))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    parts = query, target, negatives
    torch.testing.assert_close(
        torch.autograd.grad(value, parts), torch.autograd.grad(expected, parts)
    )


def test_widths_differ_and_rows_do_not(batch: tuple[Any, Tensor, Tensor]) -> None:
    similarity, query, target = batch
    with pytest.raises(ValueError, match=r"query .* and target .* differ in rows"):
        InfoNCE(0.5)(query[:5], target, similarity=similarity)
    with pytest.raises(ValueError, match="must have the same shape"):
        InfoNCE(0.5)(query, target)


def test_a_second_derivative_is_refused(batch: tuple[Any, Tensor, Tensor]) -> None:
    similarity, query, target = batch
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(
            InfoNCE(0.5)(query, target, similarity=similarity), query, create_graph=True
        )


OWN, TARGETS = torch.eye(ROWS, dtype=torch.bool), torch.arange(ROWS) % 7
SAME = TARGETS[:, None] == TARGETS
IDS = {"target_ids": TARGETS, "reference_ids": 100 + torch.arange(ROWS)}
TEACHER = torch.randn(2, ROWS, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def distillation() -> DistillationLoss:
    pairs = torch.stack((IDS["reference_ids"], TARGETS), dim=1)
    return DistillationLoss(
        TEACHER[0], pairs, TEACHER[1, :7], torch.arange(7), temperature=0.5, teacher_temperature=0.3
    )


def divergence(scores: Tensor) -> Tensor:
    unit = F.normalize(TEACHER[0]), F.normalize(TEACHER[1, :7])[TARGETS]
    wanted = (unit[0] @ unit[1].T / 0.3).log_softmax(1)
    return F.kl_div((scores / 0.5).log_softmax(1), wanted, reduction="batchmean", log_target=True)


def hard_negatives(scores: Tensor) -> Tensor:
    logits = scores / 0.5
    others = logits.masked_fill(SAME, -torch.inf)
    weights = (~SAME).sum(1, keepdim=True) * (0.3 * others).softmax(1)
    push = (weights * others.exp()).sum(1)
    return ((logits.diagonal().exp() + push).log() - logits.diagonal()).mean()


def sigmoids(scores: Tensor) -> Tensor:
    logits = scores / 0.5 - 1.0
    signed = torch.where(OWN, logits, -logits)
    return -F.logsigmoid(signed)[OWN | ~SAME].sum() / ROWS


def positives(scores: Tensor) -> Tensor:
    losses = -(scores / 0.5).log_softmax(1)
    return ((losses * SAME).sum(1) / SAME.sum(1)).mean()


def triplets(mining: str) -> Callable[[Tensor], Tensor]:
    def formula(scores: Tensor) -> Tensor:
        own = scores.diagonal()[:, None]
        hinges = (0.4 - own + scores).relu()
        if mining == "all":
            return ((hinges * ~OWN).sum(1) / (ROWS - 1)).mean()
        negatives = ~OWN if mining == "hardest" else ~SAME & (scores < own)
        return torch.where(negatives, hinges, 0.0).amax(1).mean()

    return formula


OTHERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "DistillationLoss": (distillation, divergence),
    "HardNegativeNCE": (
        lambda: HardNegativeNCE(0.5, beta=0.3, exclude="target"),
        hard_negatives,
    ),
    "MultiPositiveNCE": (lambda: MultiPositiveNCE(0.5), positives),
    "SigmoidLoss": (lambda: SigmoidLoss(0.5, -1.0, exclude="target"), sigmoids),
    "hardest": (lambda: TripletMarginLoss(0.4, "hardest"), triplets("hardest")),
    "semi-hard": (lambda: TripletMarginLoss(0.4, "semi-hard"), triplets("semi-hard")),
    "all": (lambda: TripletMarginLoss(0.4, "all"), triplets("all")),
}


@pytest.mark.parametrize("rows_of_a_tile", [4, 1024])
@pytest.mark.parametrize("name", OTHERS)
def test_every_loss_that_takes_it_is_that_of_the_whole_matrix(
    batch: tuple[Any, Tensor, Tensor],
    name: str,
    rows_of_a_tile: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_tiles, "_CPU_TILE", (rows_of_a_tile, 1))
    similarity, query, target = batch
    make, formula = OTHERS[name]
    value = make().double()(query, target, similarity=similarity, **IDS)
    expected = formula(similarity(query, target))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    assert value > 0.01
    parts = query, target
    for one, other in zip(
        torch.autograd.grad(value, parts), torch.autograd.grad(expected, parts), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def cosines(query: Tensor, target: Tensor) -> Tensor:
    return F.normalize(query) @ F.normalize(target).T


@pytest.mark.parametrize("name", OTHERS)
def test_the_cosine_as_a_similarity_is_the_cosine(name: str) -> None:
    query, target = (x.requires_grad_() for x in torch.randn(2, ROWS, DIM, dtype=torch.float64))
    loss = OTHERS[name][0]().double()
    first, second = (loss(query, target, similarity=s, **IDS) for s in (None, cosines))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(
        torch.autograd.grad(first, (query, target)), torch.autograd.grad(second, (query, target))
    )


@pytest.mark.parametrize("name", OTHERS)
def test_no_loss_takes_two_widths_without_it(batch: tuple[Any, Tensor, Tensor], name: str) -> None:
    _, query, target = batch
    with pytest.raises(ValueError, match="must have the same shape"):
        OTHERS[name][0]().double()(query.repeat(1, 2), target, **IDS)


def test_directions_have_none() -> None:
    parameters = inspect.signature(CosineAlignmentLoss().forward).parameters
    assert "similarity" not in parameters


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["InfoNCE", "SigmoidLoss", "hardest"])
def test_compiled_it_is_the_same(name: str) -> None:
    """With graph breaks: torch does not trace the gradient of a tile's similarity."""
    if name == "SigmoidLoss" and torch.__version__.startswith("2.9."):
        pytest.skip("torch 2.9 fails an assertion of its own at this graph break")
    torch._dynamo.reset()
    loss = InfoNCE(0.5) if name == "InfoNCE" else OTHERS[name][0]().double()
    query, target = (x.requires_grad_() for x in torch.randn(2, ROWS, DIM, dtype=torch.float64))
    compiled = torch.compile(loss, backend="aot_eager")
    values = [way(query, target, similarity=cosines, **IDS) for way in (loss, compiled)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(v, (query, target)) for v in values))


@pytest.mark.parametrize("name", ["InfoNCE", *OTHERS])
def test_a_query_that_is_not_finite_shows_in_the_loss(name: str) -> None:
    """So that the trainer can leave the step out."""
    loss = InfoNCE(0.5) if name == "InfoNCE" else OTHERS[name][0]().double()
    query, target = torch.randn(2, ROWS, DIM, dtype=torch.float64)
    query[3, 1] = torch.nan
    assert loss(query, target, similarity=cosines, **IDS).isnan()

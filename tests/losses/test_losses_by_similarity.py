"""InfoNCE of a fusion's own similarity, against autograd on the whole matrix."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fusecomp.fusions import ARTEMIS
from fusecomp.losses import Bank, InfoNCE, LearnableTemperature, Queue, _row_losses

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
    monkeypatch.setattr(_row_losses, "_CPU_TILE", (rows_of_a_tile, 1))
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


@pytest.mark.parametrize(
    "memory", [Queue(5, DIM), Bank(torch.ones(2, DIM), torch.arange(2))], ids=["queue", "bank"]
)
def test_what_has_unit_length_does_not_go_with_it(
    batch: tuple[Any, Tensor, Tensor], memory: Bank | Queue
) -> None:
    similarity, query, target = batch
    with pytest.raises(ValueError, match="memory does not go with a similarity"):
        InfoNCE(0.5, memory=memory)(query, target, similarity=similarity)
    with pytest.raises(ValueError, match="negatives does not go with a similarity"):
        InfoNCE(0.5)(query, target, negatives=target[:, None], similarity=similarity)


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

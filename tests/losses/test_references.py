"""InfoNCE whose candidates are the batch's references too."""

from functools import partial
from typing import Any

import by_hand
import pytest
import torch
from by_hand import DIM, IDS, OPTIONS, ROWS, assert_equals_by_hand, features, pair, set_tile
from torch import Tensor
from torch.nn import functional as F

from fusecomp.losses import Bank, CombinedLoss, InfoNCE, Queue


def by_loops(query: Tensor, target: Tensor, reference: Tensor, **settings: Any) -> float:
    """InfoNCE with references, at T = 0.3."""
    return by_hand.info_nce(query, target, 0.3, reference=reference, **settings)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Queries, targets and references that learn."""
    return *pair(), features(5, ROWS, DIM).requires_grad_()


@pytest.mark.parametrize("tile", [3, ROWS])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_equals_the_formula_in_loops(
    options: dict[str, Any], tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, tile)
    loss = InfoNCE(0.3, include_references=True, **options)
    assert_equals_by_hand(loss, partial(by_loops, **options), batch(), **IDS)


def test_a_reference_that_is_a_target_of_the_batch_counts_once() -> None:
    """Rows 1, 2, 3, 4 and 5 have such references; without the others nothing is added."""
    query, target, reference = batch()
    loss = InfoNCE(0.3, include_references=True)
    (gradient,) = torch.autograd.grad(loss(query, target, reference=reference, **IDS), reference)
    assert gradient.any(dim=1).tolist() == [True, False, False, False, False, False, True]
    among = {**IDS, "reference_ids": IDS["target_ids"].roll(1)}
    assert loss(query, target, reference=reference, **among) == InfoNCE(0.3)(query, target)


def test_negatives_and_references_go_together() -> None:
    query, target, reference = batch()
    negatives = features(1, ROWS, 2, DIM)
    loss = InfoNCE(0.3, include_references=True)
    value = loss(query, target, negatives=negatives, reference=reference, **IDS)
    ids = {name: given.tolist() for name, given in IDS.items()}
    assert value.item() == pytest.approx(
        by_loops(query, target, reference, negatives=negatives, **ids), rel=1e-12
    )


def test_a_reference_that_is_in_the_bank_counts_once() -> None:
    query, target, reference = batch()
    stored, bank_ids = features(2, 4, DIM), torch.tensor([20, 13, 10, 41])
    formula = partial(
        by_loops,
        bank=dict(zip(bank_ids.tolist(), by_hand.numbers(stored), strict=True)),
    )
    loss = InfoNCE(0.3, memory=Bank(stored, bank_ids), include_references=True)
    assert_equals_by_hand(loss, formula, (query, target, reference), **IDS)


def test_a_queue_keeps_the_targets_alone() -> None:
    inputs = [x.detach() for x in batch()]
    queue = Queue(20, DIM)
    loss = InfoNCE(0.3, memory=queue, include_references=True).double()
    loss(*inputs[:2], reference=inputs[2], **IDS)
    assert queue.pushed == ROWS
    held = list(zip(IDS["target_ids"].tolist(), by_hand.numbers(inputs[1]), strict=True))
    formula = partial(by_loops, queue=held)
    assert_equals_by_hand(loss.eval(), formula, batch(), **IDS)


def test_a_similarity_compares_with_them_too() -> None:
    query, target, reference = batch()
    loss = InfoNCE(0.3, include_references=True)

    def similarity(query: Tensor, target: Tensor) -> Tensor:
        return F.normalize(query) @ F.normalize(target).T

    values = [
        loss(query, target, reference=reference, similarity=s, **IDS) for s in (None, similarity)
    ]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(
        *(torch.autograd.grad(v, (query, target, reference)) for v in values)
    )


def test_one_row_with_its_reference_is_enough() -> None:
    query, target, reference = (x[:1] for x in batch())
    ids = {name: value[:1] for name, value in IDS.items()}
    assert InfoNCE(include_references=True)(query, target, reference=reference, **ids) > 0


@pytest.mark.parametrize("missing", ["reference", "target_ids", "reference_ids"])
def test_what_it_needs_is_named(missing: str) -> None:
    query, target, reference = batch()
    given = {"reference": reference, **IDS}
    del given[missing]
    with pytest.raises(
        ValueError, match=r"include_references=True needs reference .* target_ids and"
    ):
        InfoNCE(include_references=True)(query, target, **given)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (torch.ones(ROWS, DIM + 1), r"target \[7, 5\] and reference \[7, 6\] must have the same"),
        (torch.ones(ROWS - 1, DIM), r"target \[7, 5\] and reference \[6, 5\] must have the same"),
        (torch.ones(ROWS, DIM), "target is torch.float64 and reference is torch.float32"),
    ],
)
def test_references_of_another_form_are_refused(reference: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InfoNCE(include_references=True)(*pair(), reference=reference, **IDS)


def test_it_is_named_only_where_it_is_used() -> None:
    assert "reference" not in InfoNCE().named_keywords
    loss = InfoNCE(0.3, include_references=True)
    assert repr(loss) == "InfoNCE(temperature=0.3, include_references=True)"
    assert "reference" in loss.named_keywords
    assert "reference" not in CombinedLoss({"find": (1.0, InfoNCE())}).named_keywords


def test_a_combined_loss_passes_them_on() -> None:
    query, target, reference = batch()
    seen = []

    def own(query: Tensor, target: Tensor, reference: Any = None) -> Tensor:
        seen.append(reference)
        return query.sum()

    loss = InfoNCE(0.3, include_references=True)
    both = CombinedLoss({"find": (1.0, loss), "own": (0.0, own)})
    assert "reference" in both.named_keywords
    value = both(query, target, reference=reference, **IDS)
    assert seen[0] is reference
    torch.testing.assert_close(value, loss(query, target, reference=reference, **IDS))


def test_compiled_without_a_graph_break_it_is_the_same() -> None:
    torch._dynamo.reset()
    loss, (query, target, reference) = InfoNCE(0.3, include_references=True), batch()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    values = [way(query, target, reference=reference, **IDS) for way in (loss, compiled)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(
        *(torch.autograd.grad(v, (query, target, reference)) for v in values)
    )

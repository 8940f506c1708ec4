"""InfoNCE: both directions, exclusion, negatives, bank, queue, smoothing, margin."""

import copy
from functools import partial
from typing import Any

import by_hand
import pytest
import torch
from by_hand import (
    DIM,
    EXCLUDE,
    IDS,
    OPTIONS,
    ROWS,
    assert_equals_by_hand,
    features,
    pair,
    set_tile,
)
from torch import Tensor

from fusecomp.losses import Bank, InfoNCE, Queue


@pytest.mark.parametrize("tile", [1, 3, ROWS])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_equal_the_formula_in_loops(
    options: dict[str, Any], tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, tile)
    formula = partial(by_hand.info_nce, temperature=0.3, **options)
    assert_equals_by_hand(InfoNCE(0.3, **options), formula, pair(), **IDS)


NEGATIVE_IDS = torch.tensor([[10, 30], [31, 32], [12, 20], [13, 33], [34, 35], [36, 16], [37, 99]])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("exclude", EXCLUDE)
def test_negatives_are_candidates_of_every_row(symmetric: bool, exclude: Any) -> None:
    inputs = (*pair(), features(1, ROWS, 2, DIM).requires_grad_())
    ids = {**IDS, "negative_ids": NEGATIVE_IDS}

    def formula(query: Tensor, target: Tensor, negatives: Tensor, **ids: Any) -> float:
        settings = {"symmetric": symmetric, "exclude": exclude, "negatives": negatives}
        return by_hand.info_nce(query, target, 0.3, **settings, **ids)

    assert_equals_by_hand(InfoNCE(0.3, symmetric, exclude=exclude), formula, inputs, **ids)


def test_negatives_need_no_ids_where_nothing_is_excluded() -> None:
    inputs = (*pair(), features(1, ROWS, 2, DIM))
    expected = InfoNCE(0.3)(*inputs[:2], negatives=inputs[2], negative_ids=NEGATIVE_IDS)
    assert torch.equal(InfoNCE(0.3)(*inputs[:2], negatives=inputs[2]), expected)


def test_one_row_with_a_negative_is_enough() -> None:
    query, target = features(0, 2, 1, DIM)
    negatives = features(1, 1, 1, DIM)
    loss = InfoNCE(0.3)(query, target, negatives=negatives)
    assert loss.item() == pytest.approx(
        by_hand.info_nce(query, target, 0.3, negatives=negatives), rel=1e-12
    )


BAD_NEGATIVES: list[Any] = [
    ({"negatives": torch.ones(3, 2)}, r"negatives must be \[3, K, 2\]"),
    ({"negatives": torch.ones(2, 4, 2)}, r"negatives must be \[3, K, 2\].* got \[2, 4, 2\]"),
    ({"negatives": torch.ones(3, 4, 3)}, r"negatives must be \[3, K, 2\]"),
    ({"negatives": torch.ones(3, 1, 2).double()}, "negatives is torch.float64"),
    ({"negatives": torch.ones(3, 1, 2)}, r"exclude=\('target',\) needs negative_ids"),
    (
        {"negatives": torch.ones(3, 1, 2), "negative_ids": torch.ones(3).long()},
        r"negative_ids must be \[3, 1\].* got \[3\]",
    ),
    (
        {"negatives": torch.ones(3, 1, 2), "negative_ids": torch.ones(3, 1)},
        "negative_ids must be integers, got torch.float32",
    ),
    ({"negative_ids": torch.ones(3, 1).long()}, "negative_ids need negatives"),
]


@pytest.mark.parametrize(("keywords", "message"), BAD_NEGATIVES)
def test_bad_negatives_are_refused(keywords: dict[str, Tensor], message: str) -> None:
    loss = InfoNCE(exclude="target")
    with pytest.raises(ValueError, match=message):
        loss(torch.ones(3, 2), torch.ones(3, 2), target_ids=torch.arange(3), **keywords)


# A bank that never changes. Rows 1 and 5 have their targets outside it.

BANK_IDS = torch.tensor([13, 40, 10, 41, 16, 12])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("exclude", EXCLUDE)
@pytest.mark.parametrize(("smoothing", "margin"), [(0.0, 0.0), (0.2, 0.3)])
def test_a_bank_equals_the_formula_in_loops(
    exclude: Any, smoothing: float, margin: float, symmetric: bool
) -> None:
    """The other direction compares the batch alone."""
    stored = 3 * features(2, 6, DIM)
    options: dict[str, Any] = {
        "exclude": exclude,
        "label_smoothing": smoothing,
        "margin": margin,
        "symmetric": symmetric,
    }
    formula = partial(
        by_hand.info_nce,
        temperature=0.3,
        bank=dict(zip(BANK_IDS.tolist(), by_hand.numbers(stored), strict=True)),
        **options,
    )
    loss = InfoNCE(0.3, memory=Bank(stored, BANK_IDS), **options)
    assert_equals_by_hand(loss, formula, pair(), **IDS)


def test_a_target_in_the_bank_is_not_looked_at_in_the_batch() -> None:
    query, target = pair()
    loss = InfoNCE(0.3, memory=Bank(features(2, 6, DIM), BANK_IDS))
    value = loss(query, target, **IDS)
    (gradient,) = torch.autograd.grad(value, target)
    outside = [1, 5]
    assert gradient[outside].any(dim=1).all()
    gradient[outside] = 0
    assert not gradient.any()
    other = target.detach().clone()
    other[[0, 2, 3, 4, 6]] *= -7
    assert torch.equal(loss(query, other, **IDS), value)


def test_a_bank_counts_the_target_once() -> None:
    query, target = (x.detach() for x in pair())
    ids = torch.arange(ROWS)
    loss = InfoNCE(memory=Bank(target, ids))
    torch.testing.assert_close(loss(query, target, target_ids=ids), InfoNCE()(query, target))


def test_a_negative_that_is_in_the_bank_counts_once() -> None:
    query, target = (x.detach() for x in pair())
    stored, ids = features(2, 6, DIM), BANK_IDS
    loss = InfoNCE(0.3, memory=Bank(stored, ids))
    again = stored[:2].expand(ROWS, 2, DIM), ids[:2].expand(ROWS, 2)
    with_negatives = loss(query, target, negatives=again[0], negative_ids=again[1], **IDS)
    torch.testing.assert_close(with_negatives, loss(query, target, **IDS))
    with pytest.raises(ValueError, match="a bank needs negative_ids of the negatives"):
        loss(query, target, negatives=again[0], **IDS)


def test_one_row_with_a_bank_is_enough() -> None:
    query, target = features(0, 2, 1, DIM)
    loss = InfoNCE(memory=Bank(features(2, 6, DIM), BANK_IDS))
    assert loss(query, target, target_ids=torch.tensor([13])) > 0


def test_a_bank_is_in_the_state_dict() -> None:
    first, second = (
        InfoNCE(memory=Bank(features(seed, 6, DIM), BANK_IDS + seed)) for seed in (2, 3)
    )
    assert first.state_dict().keys() == {"memory.features", "memory.lengths", "memory.ids"}
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*pair(), **IDS), second(*pair(), **IDS))


def test_a_bank_without_target_ids_is_refused() -> None:
    loss = InfoNCE(memory=Bank(torch.eye(2), torch.arange(2)))
    with pytest.raises(ValueError, match="a bank needs target_ids"):
        loss(torch.eye(2), torch.eye(2))


@pytest.mark.parametrize(
    ("stored", "ids", "message"),
    [
        (torch.ones(3), torch.arange(3), r"features must be \[M, D\].* got \[3\]"),
        (torch.ones(0, 3), torch.arange(0), "not empty"),
        (torch.ones(3, 2).long(), torch.arange(3), "floating dtype, got torch.int64"),
        (torch.ones(3, 2), torch.arange(4), r"ids must be \[3\].* got \[4\]"),
        (torch.ones(3, 2), torch.ones(3), "ids must be integers, got torch.float32"),
        (torch.ones(3, 2), torch.tensor([5, 1, 5]), r"all different, but \[5\] occur more"),
    ],
)
def test_a_bad_bank_is_refused(stored: Tensor, ids: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bank(stored, ids)


@pytest.mark.parametrize(
    "loss", [InfoNCE(memory=Bank(torch.ones(3, 2), torch.arange(3))), InfoNCE(memory=Queue(3, 2))]
)
def test_a_bank_of_another_width_is_refused(loss: InfoNCE) -> None:
    with pytest.raises(ValueError, match=r"target \[2, 4\] does not fit (Bank|Queue)\(3, dim=2\)"):
        loss(torch.ones(2, 4), torch.ones(2, 4), target_ids=torch.arange(2))


# A queue of the last batches.


def batches(count: int, rows: int = 3) -> list[tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Pairs with ids, of which some come again."""
    made = []
    for number in range(count):
        ids = torch.arange(rows) + 2 * number
        query, target = features(10 + number, 2, rows, DIM)
        made.append((query, target, {"target_ids": ids, "reference_ids": ids + 1}))
    return made


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("exclude", EXCLUDE)
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_queue_equals_a_list(size: int, exclude: Any, symmetric: bool) -> None:
    loss = InfoNCE(0.3, symmetric, exclude=exclude, memory=Queue(size, DIM)).double()
    held: list[tuple[int, list[float]]] = []
    for query, target, ids in batches(6):
        formula = partial(
            by_hand.info_nce,
            temperature=0.3,
            symmetric=symmetric,
            exclude=exclude,
            queue=tuple(held),
        )
        learning = (query.requires_grad_(), target.requires_grad_())
        assert_equals_by_hand(copy.deepcopy(loss), formula, learning, **ids)
        loss(query, target, **ids)
        held += zip(ids["target_ids"].tolist(), by_hand.numbers(target), strict=True)
        held = held[-size:]


def test_a_queue_goes_on_from_its_state_dict() -> None:
    made = batches(6)
    queues = [Queue(7, DIM) for _ in range(2)]
    first, second = (InfoNCE(0.3, exclude="target", memory=queue) for queue in queues)
    for query, target, ids in made[:3]:
        first(query, target, **ids)
    names = ("features", "lengths", "ids", "pushed")
    assert first.state_dict().keys() == {f"memory.{name}" for name in names}
    second.load_state_dict(first.state_dict())
    for query, target, ids in made[3:]:
        assert torch.equal(first(query, target, **ids), second(query, target, **ids))
    assert torch.equal(queues[0].features, queues[1].features)


def test_a_queue_fills_in_training_only() -> None:
    queue = Queue(5, DIM)
    loss = InfoNCE(memory=queue).eval()
    loss(*pair())
    assert queue.pushed == 0
    loss.train()(*pair())
    assert queue.pushed == 5


def test_a_queue_does_not_keep_a_batch_whose_loss_is_not_finite() -> None:
    loss = InfoNCE(memory=Queue(20, DIM))
    loss(*pair())
    before = copy.deepcopy(loss.state_dict())
    query, target = (x.detach() for x in pair())
    for side in (query, target):
        broken = side.clone()
        broken[3, 2] = torch.nan
        assert loss(*(broken if x is side else x for x in (query, target))).isnan()
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())


def test_a_queue_is_a_constant_of_the_gradient() -> None:
    """The features that went in before get none, and a second backward still finds its own."""
    loss = InfoNCE(0.3, memory=Queue(20, DIM)).double()
    query, target = pair()
    first = loss(query, target)
    (expected,) = torch.autograd.grad(first, query, retain_graph=True)
    loss(*pair(1)).backward()
    (again,) = torch.autograd.grad(first, query)
    assert torch.equal(again, expected)


@pytest.mark.parametrize(("size", "dim"), [(0, 4), (4, 0), (-1, 4)])
def test_a_queue_without_room_is_refused(size: int, dim: int) -> None:
    with pytest.raises(
        ValueError, match=r"(size|dim) must be a whole number of at least 1, got (0|-1)"
    ):
        Queue(size, dim)


# Settings.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exclude": "targets"}, "exclude must name some of .* got 'targets'"),
        ({"exclude": ("target", "own")}, "exclude must name some of"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing must be in"),
        ({"label_smoothing": float("nan")}, "label_smoothing must be in"),
        ({"margin": -0.1}, "margin must be finite and not negative, got -0.1"),
        ({"margin": float("inf")}, "margin must be finite"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InfoNCE(**settings)


@pytest.mark.parametrize(
    ("exclude", "given", "message"),
    [
        ("target", (), "exclude='target' needs target_ids"),
        ("target", (), "exclude='target' needs target_ids of the batch"),
        ("reference", (), "exclude='reference' needs target_ids and reference_ids"),
        ("reference", ("target_ids",), "needs target_ids and reference_ids"),
        ("reference", ("reference_ids",), "needs target_ids and reference_ids"),
    ],
)
def test_exclusion_without_ids_is_refused(
    exclude: str, given: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        InfoNCE(exclude=exclude)(*pair(), **{name: IDS[name] for name in given})


def test_it_prints_what_is_not_as_published() -> None:
    loss = InfoNCE(symmetric=True, exclude="target", label_smoothing=0.1, margin=0.2)
    assert repr(loss) == (
        "InfoNCE(temperature=0.01, symmetric=True, exclude=('target',), label_smoothing=0.1, "
        "margin=0.2)"
    )
    assert repr(InfoNCE(memory=Queue(8, 4))) == (
        "InfoNCE(\n  temperature=0.01\n  (memory): Queue(8, dim=4)\n)"
    )


def test_arguments_of_another_kind_are_named() -> None:
    made: list[tuple[Any, str]] = [
        (lambda: InfoNCE("0.1"), "temperature must be an int or a float, got the str '0.1'"),  # type: ignore[arg-type]
        (lambda: InfoNCE(memory=100), "memory must be a losses.Bank or Queue, got 100"),  # type: ignore[arg-type]
        (
            lambda: InfoNCE()(*pair(), target_ids=[1, 2]),
            "target_ids must be a tensor of integers, got list",
        ),
    ]
    for make, message in made:
        with pytest.raises(ValueError, match=message):
            make()

"""Queries that see targets as a teacher sees them."""

from functools import partial
from typing import Any

import by_hand
import pytest
import torch
from by_hand import IDS, ROWS, assert_equals_by_hand, features, numbers, pair

from fusecomp.losses import DistillationLoss

WIDTH = 4
# The pairs of the batch in another order, one more, and those of rows 0 and 2 again.
ORDER = [3, 0, 6, 1, 2, 5, 4]
QUERY_IDS = torch.cat(
    (
        torch.stack((IDS["reference_ids"], IDS["target_ids"]), dim=1)[ORDER],
        torch.tensor([[10, 20], [20, 10], [11, 12]]),
    )
)
TARGET_IDS = torch.tensor([16, 10, 11, 40, 12, 13, 15])


def teacher(seed: int = 5) -> dict[str, Any]:
    return {
        "queries": 3 * features(seed, len(QUERY_IDS), WIDTH),
        "query_ids": QUERY_IDS,
        "targets": features(seed + 1, len(TARGET_IDS), WIDTH),
        "target_ids": TARGET_IDS,
    }


@pytest.mark.parametrize(("temperature", "softer"), [(0.3, 0.3), (0.05, 1.0), (1.0, 0.05)])
def test_it_equals_the_formula_in_loops(temperature: float, softer: float) -> None:
    made = teacher()
    queries: dict[Any, Any] = {}
    for key, vector in zip(QUERY_IDS.tolist(), numbers(made["queries"]), strict=True):
        length = sum(x * x for x in vector) ** 0.5
        mean = queries.get(tuple(key), [0.0] * WIDTH)
        queries[tuple(key)] = [x / length + y for x, y in zip(vector, mean, strict=True)]
    formula = partial(
        by_hand.distill,
        temperature=temperature,
        teacher_temperature=softer,
        teacher_queries=queries,
        teacher_targets=dict(zip(TARGET_IDS.tolist(), numbers(made["targets"]), strict=True)),
    )
    loss = DistillationLoss(**made, temperature=temperature, teacher_temperature=softer)
    assert_equals_by_hand(loss, formula, pair(), **IDS)


def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient() -> None:
    query, target = (x.float().detach().requires_grad_() for x in pair())
    target_ids = torch.arange(ROWS)
    ids = {"target_ids": target_ids, "reference_ids": target_ids + 50}
    query_ids = torch.stack((ids["reference_ids"], target_ids), dim=1)
    loss = DistillationLoss(query, query_ids, target, target_ids)(query, target, **ids)
    assert 0 <= loss < 1e-6
    for gradient in torch.autograd.grad(loss, (query, target)):
        assert gradient.abs().max() < 1e-5


def test_the_teacher_is_in_the_state_dict() -> None:
    first, second = (DistillationLoss(**teacher(seed)) for seed in (5, 7))
    assert first.state_dict().keys() == {
        "queries.keys",
        "queries.features",
        "targets.keys",
        "targets.features",
    }
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*pair(), **IDS), second(*pair(), **IDS))


@pytest.mark.parametrize(
    ("name", "ids", "message"),
    [
        ("target_ids", [10, 11, 12, 13, 10, 15, 17], r"no query .* ids \[\[99, 17\]\]"),
        ("reference_ids", [20, 12, 11, 13, 16, 10, 98], r"no query .* ids \[\[98, 16\]\]"),
        ("target_ids", [10, 11, 12, 13, 10, 15, 16], r"no image with the ids \[16\]"),
    ],
)
def test_what_the_teacher_does_not_know_is_named(name: str, ids: list[int], message: str) -> None:
    made = teacher()
    if "image" in message:
        made["target_ids"] = made["target_ids"].clone()
        made["target_ids"][0] = 17
    with pytest.raises(ValueError, match=message):
        DistillationLoss(**made)(*pair(), **{**IDS, name: torch.tensor(ids)})


def test_compiled_what_the_teacher_does_not_know_is_nan() -> None:
    torch._dynamo.reset()
    loss = torch.compile(DistillationLoss(**teacher()), fullgraph=True, backend="aot_eager")
    assert loss(*pair(), **IDS).isfinite()
    assert loss(*pair(), **{**IDS, "target_ids": IDS["target_ids"] + 1}).isnan()


@pytest.mark.parametrize("given", [(), ("target_ids",), ("reference_ids",)])
def test_it_needs_both_ids(given: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="DistillationLoss needs target_ids and reference_ids"):
        DistillationLoss(**teacher())(*pair(), **{name: IDS[name] for name in given})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": torch.ones(10)}, r"queries must be \[M, D\].* got \[10\]"),
        ({"targets": torch.ones(7, 0)}, "targets must be .* not empty"),
        ({"targets": torch.ones(7, 5)}, r"queries \[10, 4\] and targets \[7, 5\] differ"),
        ({"query_ids": torch.arange(10)}, r"query_ids must be \[10, 2\].* got \[10\]"),
        ({"query_ids": torch.ones(10, 2)}, "query_ids must be integers, got torch.float32"),
        ({"target_ids": torch.arange(8)}, r"target_ids must be \[7\].* got \[8\]"),
        ({"target_ids": torch.arange(7) - 1}, r"ids must be in \[0, 2\^31\), got -1 to 5"),
        ({"target_ids": torch.arange(7) + 2**31 - 6}, r"ids must be in \[0, 2\^31\)"),
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"teacher_temperature": -1.0}, "teacher_temperature must be positive"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillationLoss(**{**teacher(), **change})


def test_it_prints_its_settings() -> None:
    assert repr(DistillationLoss(**teacher(), temperature=0.1)) == (
        "DistillationLoss(\n"
        "  temperature=0.1, teacher_temperature=0.01\n"
        f"  (queries): _Table(8, dim={WIDTH})\n"
        f"  (targets): _Table(7, dim={WIDTH})\n"
        ")"
    )

"""The losses once more, from their formulas, in loops over Python numbers: slow, in float64."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import product
from math import exp, log, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusecomp.losses import _infonce, _tiles

Vector = Sequence[float]


def set_tile(patch: pytest.MonkeyPatch, rows: int) -> None:
    """The losses score so many rows at a time, in each of their passes."""
    patch.setattr(_tiles, "_CPU_TILE", (rows, 1))
    patch.setattr(_infonce, "_COLUMN_TILE_ROWS", rows)


def numbers(features: Tensor) -> list[list[float]]:
    rows: list[list[float]] = features.detach().double().tolist()
    return rows


def cosine(a: Vector, b: Vector) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    length = sqrt(sum(x * x for x in a)) * sqrt(sum(y * y for y in b))
    # A row shorter than 1e-6 has no direction.
    return dot / length if length > 1e-6 else 0.0


def log_sum_exp(values: Collection[float]) -> float:
    top = max(values)
    return top + log(sum(exp(value - top) for value in values))


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def cross_entropy(positive: float, others: Collection[float], smoothing: float) -> float:
    logits = [positive, *others]
    return log_sum_exp(logits) - (1 - smoothing) * positive - smoothing * mean(logits)


def ids_of(given: Sequence[int], rows: Sequence[Vector]) -> list[int | None]:
    """Those given, or None for every row."""
    return list(given) or [None] * len(rows)


def is_excluded(exclude: Collection[str], own: int | None, reference: int | None, it: Any) -> bool:
    return ("target" in exclude and it == own) or ("reference" in exclude and it == reference)


def candidates_of(
    i: int, t: list[list[float]], own: Sequence[Any], bank: dict[Any, Vector], further: Any
) -> tuple[Vector, list[tuple[Any, Vector]]]:
    """The target of row i, and the others with their ids; each image of a bank counts once."""
    others = [(it, vector) for it, vector in further if it not in bank]
    others += [(own[j], t[j]) for j in range(len(t)) if j != i and own[j] not in bank]
    others += [(it, vector) for it, vector in bank.items() if it != own[i]]
    return bank.get(own[i], t[i]), others


def further_of(keywords: dict[str, Any]) -> list[tuple[Any, Vector]]:
    """The candidates of every row beyond the batch and a bank, with their ids."""
    further = list(keywords.get("queue", ()))
    if "negatives" in keywords:
        flat = numbers(keywords["negatives"].flatten(0, 1))
        ids = [i for few in keywords.get("negative_ids", ()) for i in few]
        further += zip(ids_of(ids, flat), flat, strict=True)
    if "reference" in keywords:
        images = zip(keywords["reference_ids"], numbers(keywords["reference"]), strict=True)
        further += [(it, vector) for it, vector in images if it not in keywords["target_ids"]]
    return further


def compared(
    i: int, q: list[list[float]], t: list[list[float]], keywords: dict[str, Any]
) -> tuple[float, list[float]]:
    """The cosines of row i with its target and with the others, without what is excluded.

    A bank maps an id to features; a queue holds ids with features.
    """
    own = ids_of(keywords.get("target_ids", ()), q)
    reference = ids_of(keywords.get("reference_ids", ()), q)
    wanted, others = candidates_of(i, t, own, keywords.get("bank", {}), further_of(keywords))
    exclude = keywords.get("exclude", ())
    kept = [v for it, v in others if not is_excluded(exclude, own[i], reference[i], it)]
    return cosine(q[i], wanted), [cosine(q[i], vector) for vector in kept]


def info_nce(
    query: Tensor,
    target: Tensor,
    temperature: float = 0.01,
    *,
    symmetric: bool = False,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    **keywords: Any,
) -> float:
    q, t = numbers(query), numbers(target)
    rows = range(len(q))

    def loss(positive: float, others: Sequence[float]) -> float:
        logits = [s / temperature for s in others]
        return cross_entropy((positive - margin) / temperature, logits, label_smoothing)

    def column(j: int) -> list[float]:
        """The cosines of target j with the other queries, without what these exclude."""
        exclude, ids = keywords.get("exclude", ()), keywords.get("target_ids", ())
        own, shown = ids_of(ids, q), ids_of(keywords.get("reference_ids", ()), q)
        kept = [i for i in rows if i != j and not is_excluded(exclude, own[i], shown[i], own[j])]
        return [cosine(q[i], t[j]) for i in kept]

    forward = mean(loss(*compared(i, q, t, keywords)) for i in rows)
    if not symmetric:
        return forward
    return (forward + mean(loss(cosine(q[j], t[j]), column(j)) for j in rows)) / 2


def hard_negative(
    query: Tensor,
    target: Tensor,
    temperature: float,
    alpha: float,
    beta: float,
    **keywords: Any,
) -> float:
    q, t = numbers(query), numbers(target)

    def row(i: int) -> float:
        positive, others = compared(i, q, t, keywords)
        negatives = [s / temperature for s in others]
        if not negatives:
            return 0.0
        weights = [exp(beta * s) for s in negatives]
        share = [len(negatives) * w / sum(weights) for w in weights]
        push = sum(w * exp(s) for w, s in zip(share, negatives, strict=True))
        return log(alpha * exp(positive / temperature) + push) - positive / temperature

    return mean(row(i) for i in range(len(q)))


def sigmoid(
    query: Tensor, target: Tensor, temperature: float, bias: float, **keywords: Any
) -> float:
    q, t = numbers(query), numbers(target)

    def row(i: int) -> float:
        positive, others = compared(i, q, t, keywords)
        negatives = [s / temperature + bias for s in others]
        pull = log(1 + exp(-positive / temperature - bias))
        return pull + sum(log(1 + exp(logit)) for logit in negatives)

    return mean(row(i) for i in range(len(q)))


def multi_positive(
    query: Tensor, target: Tensor, temperature: float, target_ids: Sequence[int], **keywords: Any
) -> float:
    q, t = numbers(query), numbers(target)
    bank, queue = keywords.get("bank", {}), keywords.get("queue", ())

    def row(i: int) -> float:
        wanted, others = candidates_of(i, t, target_ids, bank, queue)
        pool = [(target_ids[i], wanted), *others]
        logits = [cosine(q[i], vector) / temperature for _, vector in pool]
        positives = [s for (it, _), s in zip(pool, logits, strict=True) if it == target_ids[i]]
        return mean(log_sum_exp(logits) - s for s in positives)

    return mean(row(i) for i in range(len(q)))


def triplet_margin(
    query: Tensor, target: Tensor, margin: float, mining: str, **keywords: Any
) -> float:
    q, t = numbers(query), numbers(target)

    def row(i: int) -> float:
        positive, negatives = compared(i, q, t, keywords)
        if mining == "semi-hard":
            apart = {**keywords, "exclude": {*keywords.get("exclude", ()), "target"}}
            # Without ids, equal rows have the id of the first of them.
            apart["target_ids"] = keywords.get("target_ids") or [t.index(row) for row in t]
            negatives = [s for s in compared(i, q, t, apart)[1] if s < positive]
        hinges = [max(0.0, margin - positive + s) for s in negatives] or [0.0]
        return mean(hinges) if mining == "all" else max(hinges)

    return mean(row(i) for i in range(len(q)))


def distill(
    query: Tensor,
    target: Tensor,
    temperature: float,
    teacher_temperature: float,
    teacher_queries: dict[tuple[int, int], Vector],
    teacher_targets: dict[int, Vector],
    target_ids: Sequence[int],
    reference_ids: Sequence[int],
) -> float:
    q, t = numbers(query), numbers(target)
    rows = range(len(q))

    def log_softmax(logits: list[float]) -> list[float]:
        return [logit - log_sum_exp(logits) for logit in logits]

    def row(i: int) -> float:
        teacher = teacher_queries[reference_ids[i], target_ids[i]]
        wanted = [cosine(teacher, teacher_targets[j]) / teacher_temperature for j in target_ids]
        logits = [cosine(q[i], t[j]) / temperature for j in rows]
        both = zip(log_softmax(wanted), log_softmax(logits), strict=True)
        return sum(exp(p) * (p - s) for p, s in both)

    return mean(row(i) for i in rows)


def cosine_alignment(query: Tensor, target: Tensor, **_: Any) -> float:
    return mean(1 - cosine(a, b) for a, b in zip(numbers(query), numbers(target), strict=True))


# What the tests of the losses share.

ROWS, DIM = 7, 5
# Rows 0 and 4 have one target; 1 and 2 have each other's target as reference; row 3 its own.
IDS: dict[str, Tensor] = {
    "target_ids": torch.tensor([10, 11, 12, 13, 10, 15, 16]),
    "reference_ids": torch.tensor([20, 12, 11, 13, 16, 10, 99]),
}


EXCLUDE: list[Any] = [(), "target", "reference", ("reference", "target")]
# Each of InfoNCE's own with each.
OPTIONS: list[dict[str, Any]] = [
    {"symmetric": symmetric, "exclude": exclude, "label_smoothing": smoothing, "margin": margin}
    for symmetric, exclude, smoothing, margin in product(
        [False, True], EXCLUDE, [0.0, 0.2], [0.0, 0.3]
    )
]


def features(seed: int, *shape: int) -> Tensor:
    """Random, in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Queries and targets that learn."""
    query, target = features(seed, 2, ROWS, DIM)
    return query.requires_grad_(), target.requires_grad_()


def slope(
    formula: Callable[..., float], inputs: Sequence[Tensor], directions: Sequence[Tensor]
) -> float:
    """The derivative of a formula of tensors in one direction, from both sides."""
    step = 1e-5
    pairs = list(zip(inputs, directions, strict=True))
    up, down = ([x.detach().double() + s * d for x, d in pairs] for s in (step, -step))
    return (formula(*up) - formula(*down)) / (2 * step)


def assert_equals_by_hand(
    loss: nn.Module, formula: Callable[..., float], inputs: Sequence[Tensor], **ids: Tensor
) -> None:
    """Value and, in random directions, gradient by query, target and, as third, negatives.

    Where these are [B, D], they are the references.
    """
    third = "reference" if inputs[-1].ndim == 2 else "negatives"
    names = ("query", "target", third)[: len(inputs)]
    value = loss(**dict(zip(names, inputs, strict=True)), **ids)
    expected = partial(formula, **{name: given.tolist() for name, given in ids.items()})
    assert value.item() == pytest.approx(expected(*inputs), rel=1e-10, abs=1e-12)
    gradients = torch.autograd.grad(value, inputs)
    for seed in range(2):
        directions = [features(100 + seed, *x.shape) for x in inputs]
        along = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
        assert along == pytest.approx(slope(expected, inputs, directions), rel=1e-5, abs=1e-7)

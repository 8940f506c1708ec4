"""The losses once more, from their formulas, in loops over Python numbers: slow, in float64."""

from collections.abc import Callable, Collection, Iterable, Sequence
from math import exp, log, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

Vector = Sequence[float]


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


def is_excluded(exclude: Collection[str], own: int | None, reference: int | None, it: int) -> bool:
    return ("target" in exclude and it == own) or ("reference" in exclude and it == reference)


def info_nce(
    query: Tensor,
    target: Tensor,
    temperature: float = 0.01,
    *,
    symmetric: bool = False,
    exclude: Collection[str] = (),
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    target_ids: Sequence[int] = (),
    reference_ids: Sequence[int] = (),
    negatives: Tensor | None = None,
    negative_ids: Sequence[Sequence[int]] = (),
    bank: dict[int, Vector] | None = None,
    queue: Sequence[tuple[int, Vector]] = (),
) -> float:
    """A bank maps an id to features; a queue holds ids with features."""
    q, t = numbers(query), numbers(target)
    rows = range(len(q))
    own = list(target_ids) or [None] * len(q)
    reference = list(reference_ids) or [None] * len(q)
    further: list[tuple[Any, Vector]] = list(queue)
    if negatives is not None:
        flat = [row for rows_of in negatives.detach().double().tolist() for row in rows_of]
        ids = [it for ids_of in negative_ids for it in ids_of] or [None] * len(flat)
        further += zip(ids, flat, strict=True)

    def row(i: int) -> float:
        candidates = list(further)
        if bank is not None and own[i] in bank:
            wanted = bank[own[i]]
            candidates += [(it, vector) for it, vector in bank.items() if it != own[i]]
            candidates += [(own[j], t[j]) for j in rows if own[j] not in bank]
        else:
            wanted = t[i]
            candidates += list((bank or {}).items())
            candidates += [(own[j], t[j]) for j in rows if j != i and own[j] not in (bank or {})]
        kept = [v for it, v in candidates if not is_excluded(exclude, own[i], reference[i], it)]
        logits = [cosine(q[i], vector) / temperature for vector in kept]
        return cross_entropy((cosine(q[i], wanted) - margin) / temperature, logits, label_smoothing)

    def column(j: int) -> float:
        kept = [
            i for i in rows if i != j and not is_excluded(exclude, own[i], reference[i], own[j])
        ]
        logits = [cosine(q[i], t[j]) / temperature for i in kept]
        return cross_entropy((cosine(q[j], t[j]) - margin) / temperature, logits, label_smoothing)

    forward = mean(row(i) for i in rows)
    return (forward + mean(column(j) for j in rows)) / 2 if symmetric else forward


def slope(
    formula: Callable[..., float], inputs: Sequence[Tensor], directions: Sequence[Tensor]
) -> float:
    """The derivative of a formula of tensors in one direction, from both sides."""
    step = 1e-5
    pairs = list(zip(inputs, directions, strict=True))
    up, down = ([x.detach().double() + s * d for x, d in pairs] for s in (step, -step))
    return float(np.float64(formula(*up) - formula(*down)) / (2 * step))


def features(seed: int, *shape: int, spread: float = 1.0) -> Tensor:
    """Random features in float64."""
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(*shape, generator=generator, dtype=torch.float64)

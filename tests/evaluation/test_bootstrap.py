"""Bootstrap intervals against loops, the binomial distribution, and laws."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import random_evaluation
from hypothesis import given, settings
from hypothesis import strategies as st

import fusecomp as fc
from fusecomp._core.metrics import recalls
from fusecomp.datasets import CIRR, FashionIQ
from fusecomp.evaluation import Ranking, TaskRanking, _bootstrap, bootstrap, compute_metrics
from fusecomp.evaluation._bootstrap import resampled
from fusecomp.types import Task, Triplet


def evaluation_of(
    ranks: Mapping[str, list[int]], subset_ranks: list[int] | None = None
) -> fc.Evaluation:
    """An evaluation with these ranks of the targets."""
    gallery = [str(number) for number in range(60)]
    tasks = []
    for name, places in ranks.items():
        queries = [Triplet(f"{name}{n}", "0", ("text",), "1") for n in range(len(places))]
        subsets = None if subset_ranks is None else [("1", "2", "3", "4")] * len(places)
        none = torch.zeros(len(places), 1)
        metrics = recalls((1, 5, 10), subsets is not None)
        task = Task(name, queries, gallery, subsets=subsets, metrics=metrics)
        members = None if subset_ranks is None else torch.zeros(len(places), 4, dtype=torch.int64)
        tasks.append(
            TaskRanking(
                task,
                none.long(),
                none,
                torch.tensor(places),
                members,
                None if subset_ranks is None else torch.tensor(subset_ranks),
            )
        )
    return compute_metrics(Ranking(tasks, {"dataset": "ranks"}))


def in_loops(
    evaluation: fc.Evaluation, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Draw queries one by one and score each resample anew."""
    rng = np.random.default_rng(seed)
    values: dict[str, list[float]] = {name: [] for name in evaluation}
    for _ in range(resamples):
        tasks = []
        for found in evaluation.ranking.tasks:
            rows = rng.integers(len(found.task.queries), size=len(found.task.queries)).tolist()
            assert found.ranks is not None
            tasks.append(
                replace(
                    found,
                    ranks=found.ranks[rows],
                    subset_ranks=None if found.subset_ranks is None else found.subset_ranks[rows],
                )
            )
        for name, value in compute_metrics(replace(evaluation.ranking, tasks=tasks)).items():
            values[name].append(value)
    return {
        name: (float(np.quantile(v, 0.025)), float(np.quantile(v, 0.975)))
        for name, v in values.items()
    }


def test_intervals_equal_those_of_loops_up_to_chance() -> None:
    rng = np.random.default_rng(0)
    ranks = {
        "a": rng.integers(1, 30, size=70).tolist(),
        "b": rng.integers(1, 15, size=40).tolist(),
    }
    evaluation = evaluation_of(ranks)
    expected = in_loops(evaluation, 3000, seed=1)
    found = bootstrap(evaluation)
    assert list(found) == list(evaluation)
    for name, (low, high) in expected.items():
        width = high - low
        assert found[name].low == pytest.approx(low, abs=0.12 * width), name
        assert found[name].high == pytest.approx(high, abs=0.12 * width), name


def test_subsets_and_their_means_too() -> None:
    rng = np.random.default_rng(2)
    ranks = rng.integers(1, 12, size=80)
    subset = np.clip(ranks // 2, 1, 4).tolist()  # depends on the rank, as it does in truth
    evaluation = evaluation_of({"": ranks.tolist()}, subset)
    assert "harmonic_mean" in evaluation
    expected = in_loops(evaluation, 3000, seed=3)
    for name, (low, high) in bootstrap(evaluation).items():
        width = expected[name][1] - expected[name][0]
        assert low == pytest.approx(expected[name][0], abs=0.12 * width), name
        assert high == pytest.approx(expected[name][1], abs=0.12 * width), name


def test_one_recall_is_binomial() -> None:
    count, hits = 200, 60
    evaluation = evaluation_of({"": [1] * hits + [20] * (count - hits)})
    share, total = hits / count, 0.0
    bounds: list[float] = []
    for k in range(count + 1):
        total += math.comb(count, k) * share**k * (1 - share) ** (count - k)
        if len(bounds) < 1 and total >= 0.025:
            bounds.append(100 * k / count)
        if len(bounds) < 2 and total >= 0.975:
            bounds.append(100 * k / count)
    interval = bootstrap(evaluation)["recall@1"]
    assert interval == pytest.approx(bounds, abs=100 / count)


def test_both_rankings_see_the_same_draws(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val")
    one, other = (random_evaluation(data, seed).ranking for seed in (0, 1))
    first, second, third = resampled([one, other, one], 50, seed=0)
    for name in first:
        assert torch.equal(first[name], third[name])
    assert not torch.equal(first["mean/recall@10"], second["mean/recall@10"])


def test_a_task_is_resampled_alone() -> None:
    evaluation = evaluation_of({"always": [1] * 9, "half": [1, 20] * 8})
    (metrics,) = resampled([evaluation.ranking], 100, seed=0)
    assert metrics["always/recall@1"].eq(100).all()
    half = metrics["half/recall@1"]
    assert half.std() > 0
    torch.testing.assert_close(metrics["mean/recall@1"], 50 + half / 2)
    # A query drawn from 16 moves its task's recall by a sixteenth.
    assert ((half * 16 / 100) % 1 == 0).all()


@settings(max_examples=30)
@given(st.lists(st.sampled_from([-1, 1, 4, 9, 40]), min_size=1, max_size=30), st.integers(0, 9))
def test_intervals_lie_in_0_to_100_and_are_repeated_by_the_seed(
    ranks: list[int], seed: int
) -> None:
    evaluation = evaluation_of({"": ranks})
    intervals = bootstrap(evaluation, resamples=200, seed=seed)
    assert intervals == bootstrap(evaluation, resamples=200, seed=seed)
    for name, (low, high) in intervals.items():
        assert 0 <= low <= high <= 100
        if evaluation[name] in (0, 100):
            assert low == high == evaluation[name]


def test_another_seed_gives_other_draws() -> None:
    evaluation = evaluation_of({"": list(range(1, 40))})
    one, other = (resampled([evaluation.ranking], 100, seed)[0]["mean"] for seed in (0, 1))
    assert not torch.equal(one, other)


def test_drawing_in_blocks_changes_nothing(
    tiny_cirr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking = random_evaluation(CIRR(tiny_cirr, "val")).ranking
    (whole,) = resampled([ranking], 100, seed=0)
    monkeypatch.setattr(_bootstrap, "_DRAWN", 70)
    (blocks,) = resampled([ranking], 100, seed=0)
    assert all(torch.equal(whole[name], blocks[name]) for name in whole)


def test_no_resamples_are_refused(tiny_cirr: Path) -> None:
    with pytest.raises(ValueError, match="resamples must be a whole number of at least 1, got 0"):
        bootstrap(random_evaluation(CIRR(tiny_cirr, "val")), resamples=0)


def test_a_seed_below_0_is_refused(tiny_cirr: Path) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0, got -1"):
        bootstrap(random_evaluation(CIRR(tiny_cirr, "val")), seed=-1)

"""Files of evaluations, changed together with their checksum: what does not fit is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import assert_equal, random_model, rewrite

import fusecomp as fc
from fusecomp.datasets import CIRR
from fusecomp.evaluation import compute_metrics


def task_with(**values: Any) -> Any:
    return lambda about, _: about["tasks"][0].update(values)


def array_with(name: str, change: Any) -> Any:
    return lambda _, arrays: arrays.update({f"0/{name}": change(arrays[f"0/{name}"])})


def rows_with(name: str, values: Any) -> Any:
    column = np.array([values] * 8 if isinstance(values, float | int) else values)
    return lambda _, arrays: arrays.update({f"0/{name}": column[:, None]})


def values_with(change: Any) -> Any:
    """The first metric is said to be a user's own."""
    return lambda _, arrays: arrays.update({"0/metric0": change(np.ones(8))})


def second_task(**values: Any) -> Any:
    """Another task, which is the first one but for some values."""

    def change(about: Any, arrays: dict[str, Any]) -> None:
        about["tasks"].append({**about["tasks"][0], **values})
        arrays.update({f"1/{name[2:]}": array for name, array in list(arrays.items())})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about, _: about.update(format="fusecomp.evaluation/9"), "its format is"),
        (lambda about, arrays: arrays.clear() or about.update(tasks=[]), "there is no task"),
        (lambda about, _: about.pop("protocol"), "protocol"),
        (task_with(gallery=[f"x{n}" for n in range(12)]), "not in the gallery of task"),
        (task_with(gallery=["a", 3]), "outside its gallery of 2"),
        (task_with(gallery=[3] * 12), "gallery must be a list of strings"),
        (lambda about, _: about["tasks"][0]["queries"].pop(), "for 7 queries"),
        (rows_with("exclude", -2), "exclude of task 'dress' point outside its gallery of 12"),
        (rows_with("subsets", 12), "subsets of task 'dress' point outside its gallery of 12"),
        (rows_with("relevant", 12), "relevant of task 'dress' point outside its gallery of 12"),
        (rows_with("relevant", 0), "is not the first of its relevant images"),
        (lambda _, arrays: arrays.update({"1/ranks": np.ones(8)}), "list index out of range"),
        (lambda _, arrays: arrays.update({"0/more": np.ones(8)}), "more of task 'dress' are"),
        (task_with(metrics=[]), "task 'dress' has no metrics"),
        (task_with(metrics=["recall@0", "recall@10"]), "the metric 'recall@0' has no values"),
        (task_with(metrics=["mine", "recall@10"]), "the metric 'mine' has no values"),
        (task_with(summaries=[["Median", "mean", []]]), "'Median'"),
        (task_with(decides="median"), "has decides='median', valid: recall@10, recall@50, mean"),
        (values_with(lambda a: a * np.nan), "metric0 of task 'dress' are not finite"),
        (values_with(lambda a: a > 0), "metric0 of task 'dress' are torch.bool"),
        (values_with(lambda a: a[1:]), r"metric0 of task 'dress' are \[7\] for 8 queries"),
        (lambda _, arrays: arrays.pop("0/ranks"), "has no targets"),
        (lambda _, arrays: arrays.pop("0/scores"), "scores"),
        (lambda _, arrays: arrays.update({"0/ranks": np.zeros(3, np.int32)}), "for 8 queries"),
        (lambda _, arrays: arrays.update({"0/ranks": np.full(8, 13)}), "outside its gallery of 12"),
        (lambda _, arrays: arrays.update({"0/scores": np.zeros((8, 2))}), "other scores"),
        (task_with(metrics=[f"recall@{10**30}", "recall@1"]), "has no values"),
        (task_with(name="mean"), "a task is named 'mean'"),
        (task_with(name=3), "the name of a task must be a string, got 3"),
        (task_with(gallery="Dval01234567"), "gallery must be a list of strings"),
        (rows_with("exclude", True), "exclude of task 'dress' are torch.bool"),
        (rows_with("exclude", 0.0), "exclude of task 'dress' are torch.float64"),
        (rows_with("subsets", 0), "its target 'Dval04' is not in its subset"),
        (rows_with("subsets", range(4, 12)), "subset_indices"),
        (task_with(missing_queries="ab"), "missing_queries must be a list of strings"),
        (lambda about, _: about["tasks"][0]["queries"][0].__setitem__(2, "abc"), "texts must be"),
        (lambda about, _: about.update(protocol={"split": 5}), "its protocol must be a list of st"),
        (lambda about, _: about["tasks"][0]["queries"][0].__setitem__(3, None), "has no target"),
        (second_task(), "two tasks are named"),
        (second_task(name="x", metrics=["recall@10"]), "must have the same metrics"),
        (array_with("ranks", np.ones_like), "rank 1, which its indices refute"),
        (array_with("ranks", np.zeros_like), "rank 0, which its indices refute"),
        (array_with("ranks", lambda a: a * 0 - 1), "rank -1, which its indices refute"),
        (array_with("ranks", lambda a: a + 0.7), "ranks of task 'dress' are torch.float64"),
        (array_with("ranks", lambda a: a > 0), "ranks of task 'dress' are torch.bool"),
        (array_with("ranks", lambda a: a.astype(">i4")), "torn or no evaluation"),
        (array_with("indices", lambda a: np.minimum(a, 0)), "indices that are there twice"),
        (array_with("indices", lambda a: np.roll(a, 1, axis=1)), "scores that are not finite"),
        (array_with("indices", lambda a: a.astype(float)), "indices of task 'dress' are torch.f"),
        (array_with("scores", lambda a: a * np.nan), "scores that are not finite"),
        (array_with("scores", lambda a: -a), "scores that are not finite, or do not fall"),
        (array_with("scores", lambda a: a.clip(-9)), "scores that are not finite, or do not fall"),
        (array_with("scores", lambda a: a > 0), "scores of task 'dress' are torch.bool"),
    ],
)
def test_what_does_not_fit_is_named(saved: Path, change: Any, message: str) -> None:
    rewrite(saved, change)
    with pytest.raises(ValueError, match=message):
        fc.Evaluation.load(saved)


@pytest.fixture
def saved_cirr(tiny_cirr: Path, tmp_path: Path) -> Path:
    """An evaluation that keeps the whole ranking of 60 images."""
    data, path = CIRR(tiny_cirr, "val"), tmp_path / "evaluation.npz"
    compute_metrics(fc.rank(random_model(data), data, k=64)).save(path)
    return path


@pytest.mark.parametrize("name", ["indices", "ranks", "subset_indices", "subset_ranks"])
def test_no_single_number_of_a_ranking_can_be_changed(saved_cirr: Path, name: str) -> None:
    whole = saved_cirr.read_bytes()
    with np.load(saved_cirr) as arrays:
        size = arrays[f"0/{name}"].size
    generator = np.random.default_rng(0)
    for place in generator.choice(size, 30).tolist():
        saved_cirr.write_bytes(whole)
        step = int(generator.integers(1, 61))

        def change(array: Any, place: int = place, step: int = step) -> Any:
            array = array.copy()
            # Another one of -1 ... 59.
            array.flat[place] = (array.flat[place] + 1 + step) % 61 - 1
            return array

        rewrite(saved_cirr, array_with(name, change))
        with pytest.raises(
            ValueError, match=r"evaluation\.npz is torn or no evaluation \(.*(query|outside|scores)"
        ):
            fc.Evaluation.load(saved_cirr)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (array_with("subset_indices", lambda a: a[:, ::-1]), "another order|not the members"),
        (array_with("subset_indices", lambda a: a[:, :-1]), "not the members of its subset"),
        (array_with("subset_ranks", np.ones_like), "subset rank 1, which its subset indices"),
        (lambda _, arrays: arrays.pop("0/subset_ranks"), "subset_ranks"),
        (
            array_with("subsets", lambda a: a[:, ::-1] * (a[:, ::-1] > 3)),
            "members of its|its target",
        ),
        (array_with("exclude", lambda a: a * 0 - 1), "other indices than its gallery has"),
    ],
)
def test_subsets_that_do_not_fit_are_named(saved_cirr: Path, change: Any, message: str) -> None:
    rewrite(saved_cirr, change)
    with pytest.raises(ValueError, match=message):
        fc.Evaluation.load(saved_cirr)


def test_ranks_beyond_what_was_kept_are_bounded_by_the_gallery(
    tiny_cirr: Path, tmp_path: Path
) -> None:
    data, path = CIRR(tiny_cirr, "val"), tmp_path / "evaluation.npz"
    ranking = fc.rank(random_model(data), data, k=2)
    evaluation = compute_metrics(ranking)
    evaluation.save(path)
    assert_equal(evaluation, fc.Evaluation.load(path))
    whole, size = path.read_bytes(), len(ranking[""].task.gallery)
    ranks = ranking[""].ranks
    assert ranks is not None
    row = int((ranks > 2).nonzero()[0])
    for rank in (-1, 0, 1, 2, size):  # the reference is excluded, so that the last place is free
        path.write_bytes(whole)
        changed = ranks.index_fill(0, torch.tensor(row), rank).numpy()
        rewrite(path, lambda _, arrays, changed=changed: arrays.update({"0/ranks": changed}))
        with pytest.raises(ValueError, match=f"the rank {rank}, which its indices refute"):
            fc.Evaluation.load(path)

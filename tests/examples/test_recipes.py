"""The comparison of recipes: its arithmetic, and a quick run that goes on where it stopped."""

import json
import math
import sys
from pathlib import Path

import pytest
import recipes
from evaluations import random_evaluation

from fusecomp.datasets import FashionIQ
from fusecomp.evaluation import compare


def test_a_difference_over_seeds_has_students_interval(tiny_fashioniq: Path) -> None:
    val = FashionIQ(tiny_fashioniq, "val")
    before, after = ([random_evaluation(val, seed) for seed in s] for s in ((0, 1, 2), (3, 4, 5)))
    found = recipes.difference(before, after)
    each = [b["mean"] - a["mean"] for a, b in zip(before, after, strict=True)]
    mean = sum(each) / 3
    error = math.sqrt(sum((d - mean) ** 2 for d in each) / 2 / 3)
    assert found["each"] == pytest.approx(each)
    numbers = mean, mean - 4.303 * error, mean + 4.303 * error
    assert (found["mean"], found["low"], found["high"]) == pytest.approx(numbers)


def test_the_interval_of_one_seed_is_that_of_its_queries(tiny_fashioniq: Path) -> None:
    val = FashionIQ(tiny_fashioniq, "val")
    before, after = random_evaluation(val, 0), random_evaluation(val, 1)
    found = recipes.difference([before], [after])
    expected = compare(before, after, resamples=2000).differences["mean"]
    assert (found["mean"], found["low"]) == (expected.difference, expected.low)


@pytest.mark.heavy
def test_it_compares_the_recipes_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["recipes.py", "--quick", "--seeds", "0", "--datasets", "MiniFashion"]
    monkeypatch.setattr(sys, "argv", [*argv, "--workdir", str(tmp_path)])
    recipes.main()
    printed = capsys.readouterr().out.partition("in per cent")[2]
    content = json.loads((tmp_path / "recipes.json").read_text())["MiniFashion"]
    expected = [(name, recipe) for name, (*_, used) in recipes.ENCODERS.items() for recipe in used]
    assert [(row["encoder"], row["recipe"]) for row in content] == expected
    assert printed.count("\n| ") == 1 + len(expected)
    monkeypatch.setattr(recipes, "Prepared", None)  # whatever is there is not computed again
    (tmp_path / "recipes.json").unlink()
    recipes.main()
    assert json.loads((tmp_path / "recipes.json").read_text())["MiniFashion"] == content

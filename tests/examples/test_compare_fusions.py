"""The comparison of fusions: it knows all of them, keeps what is done, and counts right."""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compare_fusions
import pytest
import torch
from evaluations import random_evaluation
from fusion_tables import Cost, Score, summarize, table

import fusecomp as fc
from fusecomp import fusions
from fusecomp.datasets import FashionIQ
from fusecomp.evaluation import compare

COST = Cost(parameters=1_240_000, milliseconds=0.5)


def test_no_fusion_is_forgotten() -> None:
    makers = compare_fusions.own_fusions(8, 8, 8, torch.ones(8))
    for name, make in makers.items():
        assert type(make()).__name__ == name.partition(",")[0]
    assert {name.partition(",")[0] for name in makers} == set(fusions.__all__)


@pytest.fixture
def run(
    tiny_fashioniq: Path,
    feature_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., dict[str, Any]]:
    """Run the comparison on a feature file; gives the numbers of its two recipes."""
    features = feature_file(*(FashionIQ(tiny_fashioniq, split) for split in ("train", "val")))

    def compared(*options: str) -> dict[str, Any]:
        argv = ["compare_fusions.py", "--quick", "--batch-size", "4", "--seeds", "0"]
        argv += ["--features", str(features), "--dataset", "fashioniq", str(tiny_fashioniq)]
        monkeypatch.setattr(sys, "argv", [*argv, "--workdir", str(tmp_path / "out"), *options])
        compare_fusions.main()
        content = json.loads((tmp_path / "out" / "results.json").read_text())
        numbers: dict[str, Any] = content["FashionIQ"]
        return numbers

    return compared


@pytest.mark.filterwarnings("ignore:CIRPLANT takes text_tokens:UserWarning")
@pytest.mark.heavy
def test_it_compares_every_fusion_on_a_feature_file_and_goes_on_where_it_stopped(
    run: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    numbers = run()
    assert list(numbers) == ["paper", "recommended"]
    for found in numbers.values():
        assert found["Sum"]["parameters"] == 0
        assert found["Combiner"]["difference"] == 0
        assert len(found["TIRG"]["scores"]) == 1
    assert "paper recipe: mean" in capsys.readouterr().out
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000

    def train_again(*args: object, **settings: object) -> None:
        raise AssertionError

    monkeypatch.setattr(fc, "Trainer", train_again)
    again = run()
    for recipe, found in numbers.items():
        assert all(found[name]["scores"] == again[recipe][name]["scores"] for name in found)
    with pytest.raises(AssertionError):
        run("--batch-size", "3")  # other settings are another training


def test_the_interval_of_drawn_seeds_is_students(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val")
    ours, base = (
        [Score(random_evaluation(data, seed), 1.0) for seed in seeds]
        for seeds in (range(3), range(3, 6))
    )
    found = summarize({"Sum": ours, "Combiner": base}, "Sum", COST, drawn=True)
    each = [a.evaluation["mean"] - b.evaluation["mean"] for a, b in zip(ours, base, strict=True)]
    assert found["differences"] == pytest.approx(each)
    # 4.303 is Student's t for 3 - 1 degrees of freedom, at 0.975.
    half = 4.303 * statistics.stdev(each) / 3**0.5
    middle = statistics.fmean(each)
    assert found["interval"] == pytest.approx((middle - half, middle + half))


def test_the_interval_on_one_set_of_queries_is_that_of_compare(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val")
    ours, base = random_evaluation(data, 0), random_evaluation(data, 1)
    rows = {"Sum": [Score(ours, 1.0)] * 2, "Combiner": [Score(base, 1.0)] * 2}
    found = summarize(rows, "Sum", COST, drawn=False)
    expected = compare(base, ours, changes=0, resamples=2000).differences["mean"]
    assert found["interval"] == pytest.approx((expected.low, expected.high))
    assert found["difference"] == pytest.approx(expected.difference)


def test_the_table_counts_the_seeds_that_are_better() -> None:
    base: dict[str, Any] = {"metrics": {"recall@1": 50.0, "mean": 60.0}, "headline": "mean"}
    base |= {"difference": 0.0, "interval": (0.0, 0.0), "differences": [0.0] * 3, "seconds": 2.0}
    base |= COST._asdict()
    ours = base | {"difference": 1.0, "interval": (-1.0, 3.0), "differences": [3.0, -1.0, 0.0]}
    ours |= {"metrics": {"recall@1": 51.0, "mean": 61.0}}
    found = str(
        table({"paper": {"Combiner": base, "Sum": base}, "new": {"Combiner": base, "Sum": ours}})
    )
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.splitlines()]
    assert cells[0][1:5:2] == ["paper recipe: mean", "new recipe: R@1"]
    zero, difference = "+0.00 [+0.00, +0.00], 0/3", "+1.00 [-1.00, +3.00], 1/3"
    assert cells[2] == ["Sum", "60.00", zero, "51.00", "61.00", difference, "2.0", "1.2 M", "0.50"]
    assert cells[3][2] == cells[3][5] == ""

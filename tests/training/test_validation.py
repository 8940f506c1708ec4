"""Validation picks the best weights, by any metric that the dataset has."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from evaluations import CIRR_METRICS
from toy import CONFIG, DIM, Toy, composed

import fusecomp as fc


def test_the_best_weights_come_back(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    for workdir in (None, tmp_path / "run"):
        config = replace(CONFIG, epochs=8, lr=0.1, metric="recall@5")
        run = fc.Trainer(composed(), loss=fc.InfoNCE(), config=config, workdir=workdir).fit(
            data, data
        )
        scores = [record["recall@5"] for record in run.history]
        assert len(set(scores)) > 1
        assert run.metrics["recall@5"] == max(scores)
        assert run.metrics["epoch"] == 1 + scores.index(max(scores))
        again = fc.evaluate(run.model, data)
        assert again["recall@5"] == max(scores)


def cirr_world(root: Path) -> tuple[fc.ComposedEncoder, fc.datasets.CIRR, fc.datasets.CIRR]:
    """A Combiner on random features of both splits."""
    train, val = fc.datasets.CIRR(root, "train"), fc.datasets.CIRR(root, "val")
    torch.manual_seed(0)
    ids = [*train.image_ids, *val.image_ids]
    texts = list(dict.fromkeys([*train.texts(), *val.texts()]))
    cached = fc.CachedEncoder.from_arrays(
        ids, torch.randn(len(ids), DIM), texts, torch.randn(len(texts), DIM)
    )
    return fc.ComposedEncoder(cached, fc.Combiner(DIM)), train, val


@pytest.mark.parametrize("metric", [None, *CIRR_METRICS])
def test_each_metric_of_cirr_picks_its_own_best_weights(
    tiny_cirr: Path, metric: str | None
) -> None:
    model, train, val = cirr_world(tiny_cirr)
    config = replace(CONFIG, epochs=6, lr=0.05, metric=metric)
    run = fc.Trainer(model, loss=fc.InfoNCE(), config=config).fit(train, val)
    scores = [record[metric or "mean(recall@5, recall_subset@1)"] for record in run.history]
    assert len(set(scores)) > 1
    assert run.metrics["epoch"] == 1 + scores.index(max(scores))


def test_an_unknown_metric_of_cirr_lists_the_valid_ones(tiny_cirr: Path) -> None:
    model, train, val = cirr_world(tiny_cirr)
    for unknown in ("mean", "recall_subset@5"):
        with pytest.raises(ValueError) as caught:
            fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, metric=unknown)).fit(
                train, val
            )
        message = f"unknown metric {unknown!r}; valid: {', '.join(CIRR_METRICS)}"
        assert str(caught.value) == message


def test_without_validation_the_last_weights_stay(tmp_path: Path) -> None:
    run = fc.Trainer(composed(), loss=fc.InfoNCE(), config=CONFIG).fit(Toy(tmp_path))
    assert run.metrics == run.history[-1]
    assert set(run.metrics) == {"epoch", "loss", "gradient_norm", "lr"}


def test_the_last_epoch_is_always_evaluated(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    run = fc.Trainer(
        composed(), loss=fc.InfoNCE(), config=replace(CONFIG, epochs=5, eval_every_epochs=2)
    ).fit(data, data)
    assert [r["epoch"] for r in run.history if "mean" in r] == [2, 4, 5]


def test_an_unknown_metric_lists_the_valid_ones(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    with pytest.raises(ValueError, match=r"recall@7.*valid: recall@1, recall@5, mean"):
        fc.Trainer(composed(), loss=fc.InfoNCE(), config=replace(CONFIG, metric="recall@7")).fit(
            data, data
        )


def test_a_metric_needs_validation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="validation"):
        fc.Trainer(composed(), loss=fc.InfoNCE(), config=replace(CONFIG, metric="mean")).fit(
            Toy(tmp_path)
        )

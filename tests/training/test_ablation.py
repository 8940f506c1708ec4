from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import CONFIG, DIM, Toy, changed, encoder, weights

import fusecomp as fc
from fusecomp.training import ablation


def test_the_rows_are_those_of_the_paper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, live = Toy(tmp_path), encoder()
    before = weights(live)
    torch.manual_seed(0)
    fusion = fc.Combiner(DIM)
    result = ablation(
        live,
        fusion,
        data,
        data,
        loss=fc.InfoNCE(),
        stage1=replace(CONFIG, trainable="text"),
        stage2=CONFIG,
        workdir=tmp_path / "run",
    )
    said = [line for line in capsys.readouterr().err.splitlines() if "ablation" in line]
    trained = ("plain, Combiner", "tuned, Combiner")
    assert said == [f"ablation: training for the row {row}" for row in trained]
    assert list(result.evaluations) == [
        "image only",
        "text only",
        "plain, Sum",
        "plain, Combiner",
        "tuned, Sum",
        "tuned, Combiner",
    ]
    assert {name.split(".")[0] for name in changed(before, weights(live))} == {"text"}
    again = fc.evaluate(result.model, data)
    assert dict(again) == dict(result.evaluations["tuned, Combiner"])
    tuned_sum = fc.evaluate(fc.ComposedEncoder(live, fc.Sum()), data)
    assert dict(tuned_sum) == dict(result.evaluations["tuned, Sum"])
    torch.manual_seed(0)
    combiner = fc.Combiner(DIM)
    plain = fc.Trainer(
        fc.ComposedEncoder(encoder(), combiner), loss=fc.InfoNCE(), config=CONFIG
    ).fit(data, data)
    row = result.evaluations["plain, Combiner"]
    assert {name: plain.metrics[name] for name in row} == dict(row)
    assert (tmp_path / "run" / "plain" / "stage2" / "last.pt").exists()
    assert (tmp_path / "run" / "tuned" / "stage1" / "last.pt").exists()


def test_an_encoder_that_cannot_learn_has_plain_rows(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    cached = fc.CachedEncoder.build(encoder(), data)
    result = ablation(
        cached, fc.Combiner(DIM), data, data, loss=fc.InfoNCE(), stage1=None, stage2=CONFIG
    )
    assert list(result.evaluations)[-1] == "plain, Combiner"
    assert dict(fc.evaluate(result.model, data)) == dict(result.evaluations["plain, Combiner"])


def test_the_encoder_is_tuned_under_the_fusion_that_is_given(tmp_path: Path) -> None:
    stage1 = replace(CONFIG, trainable="text")
    tuned = []
    for first in (fc.fusions.WeightedSum(0.9), fc.fusions.WeightedSum(0.1)):
        data, live = Toy(tmp_path), encoder()
        torch.manual_seed(0)
        parts: dict[str, Any] = {"loss": fc.InfoNCE(), "stage1": stage1, "stage2": CONFIG}
        parts["stage1_fusion"] = first
        result = ablation(live, fc.Combiner(DIM), data, data, **parts)
        torch.manual_seed(0)
        alone = encoder()
        only_first = fc.TwoStageTrainer(alone, fc.Combiner(DIM), **parts).stage1
        assert only_first is not None
        only_first.fit(data, data)
        assert changed(weights(live), weights(alone)) == set()
        assert list(result.evaluations)[-2:] == ["tuned, Sum", "tuned, Combiner"]
        tuned.append(weights(live))
    assert changed(*tuned)
    with pytest.raises(ValueError, match="stage1_fusion needs stage1, which is None"):
        ablation(live, fc.Combiner(DIM), data, data, **{**parts, "stage1": None})

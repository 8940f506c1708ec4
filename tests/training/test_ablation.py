from dataclasses import replace
from pathlib import Path

import torch
from toy import CONFIG, DIM, Toy, changed, encoder, weights

import fusecomp as fc
from fusecomp.training import ablation


def test_the_rows_are_those_of_the_paper(tmp_path: Path) -> None:
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

"""Rates, decay, clipping and the average of the weights."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from eight_steps import CONFIG, composed, fit
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from toy import Toy, first_epoch, weights

import fusecomp as fc
from fusecomp.losses import LearnableTemperature
from fusecomp.training._optimizer import rate_factor


@given(st.sampled_from(["constant", "cosine", "linear"]), st.integers(0, 20), st.integers(1, 100))
def test_the_rate_rises_and_falls_within_its_bounds(schedule: str, warmup: int, steps: int) -> None:
    config = replace(CONFIG, lr_schedule=schedule, warmup_steps=warmup)
    factors = [rate_factor(config, step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    if steps > warmup:
        assert factors[warmup] == 1


@pytest.mark.parametrize("steps", [4, 10])
def test_the_rate_is_that_of_the_formula_and_never_rises_again(steps: int) -> None:
    config = replace(CONFIG, warmup_steps=2)
    for step in range(2, 3 * steps):
        done = min(1, (step - 2) / (steps - 2))
        for schedule, expected in (
            ("constant", 1),
            ("linear", 1 - done),
            ("cosine", (1 + math.cos(math.pi * done)) / 2),
        ):
            factor = rate_factor(replace(config, lr_schedule=schedule), step, steps)
            assert factor == pytest.approx(expected, abs=1e-12)


def test_the_rate_reaches_the_optimiser_and_the_record(tmp_path: Path) -> None:
    run = fit(tmp_path, replace(CONFIG, lr_schedule="linear", warmup_steps=2))
    # Eight steps: 1/2, 1, then 1, 5/6, ... down.
    assert [r["lr"] / CONFIG.lr for r in run.history] == pytest.approx([1, 5 / 6, 3 / 6, 1 / 6])


def test_patterns_have_rates_of_their_own(tmp_path: Path) -> None:
    lr_of = {"encoder.*": 0.001, "fusion.*output*": 0.002, "fusion.output*": 0.0}
    config = replace(CONFIG, trainable=("text", "fusion"), lr_overrides=lr_of)
    trainer = fc.Trainer(composed(), loss=fc.InfoNCE(), config=config)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    rates = {names[id(p)]: g["lr"] for g in trainer.optimizer.param_groups for p in g["params"]}
    assert rates["encoder.text.embedding.weight"] == 0.001
    assert rates["fusion.output_layer.weight"] == 0.0
    assert rates["fusion.combiner_layer.weight"] == 0.05
    of_loss = replace(CONFIG, lr_overrides={"loss.temperature*": 0.002})
    temperature = LearnableTemperature()
    loss = fc.InfoNCE(temperature)
    groups = fc.Trainer(composed(), loss=loss, config=of_loss).optimizer.param_groups
    assert [g["lr"] for g in groups for p in g["params"] if p is temperature.log_scale] == [0.002]
    with pytest.raises(
        ValueError, match=r"lr_overrides: no learning parameter matches 'fusion\.nothing'"
    ):
        replaced = replace(config, lr_overrides={"fusion.nothing": 0.1})
        fc.Trainer(composed(), loss=fc.InfoNCE(), config=replaced)


@pytest.mark.parametrize(
    ("no_decay", "without"),
    [(None, {"bias"}), ((), set()), (("fusion.*.weight",), {"weight"})],
)
def test_what_decays(tmp_path: Path, no_decay: tuple[str, ...] | None, without: set[str]) -> None:
    class Tempered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, query: Tensor, target: Tensor) -> Tensor:
            return (query - target).square().mean() * self.scale

    config = replace(CONFIG, no_decay=no_decay, weight_decay=0.1)
    trainer = fc.Trainer(composed(), loss=Tempered(), config=config)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    found = {
        names.get(id(p), "scale").rpartition(".")[2]
        for group in trainer.optimizer.param_groups
        for p in group["params"]
        if group["weight_decay"] == 0
    }
    assert found == {*without, "scale"}


# Clipping, averaging


def test_long_gradients_are_scaled_down(tmp_path: Path) -> None:
    config = replace(CONFIG, optimizer="sgd", lr=1.0, epochs=1)
    moved = []
    for clip in (None, 1e-3, 1e9):
        model = composed()
        before = weights(model)
        trainer = fc.Trainer(
            model, loss=fc.InfoNCE(0.1), config=replace(config, max_grad_norm=clip)
        )
        trainer.step(next(first_epoch(trainer, Toy(tmp_path))))
        after = weights(model)
        moved.append(torch.cat([(after[n] - before[n]).flatten() for n in before]))
    assert moved[1].norm().item() == pytest.approx(1e-3, rel=1e-4)
    assert torch.equal(moved[0], moved[2])
    assert torch.cosine_similarity(moved[0], moved[1], dim=0).item() == pytest.approx(1)


def test_the_average_is_what_is_evaluated_and_returned(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    seen: list[dict[str, Tensor]] = []

    class Watch:
        def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
            seen.append(weights(trainer.model))

    model = composed()
    average = {name: weight.double() for name, weight in weights(model).items()}
    run = fc.Trainer(
        model, loss=fc.InfoNCE(0.1), config=replace(CONFIG, ema_decay=0.8), callbacks=[Watch()]
    ).fit(data)
    for step in seen:
        average = {n: 0.8 * average[n] + 0.2 * step[n].double() for n in average}
    for name, weight in weights(run.model).items():
        torch.testing.assert_close(weight.double(), average[name], rtol=1e-4, atol=1e-6)
    with_validation = fc.Trainer(
        composed(), loss=fc.InfoNCE(0.1), config=replace(CONFIG, ema_decay=0.8, eval_every_epochs=4)
    ).fit(data, data)
    for name, weight in weights(with_validation.model).items():
        torch.testing.assert_close(weight, weights(run.model)[name])

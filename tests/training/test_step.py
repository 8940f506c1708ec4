"""One step: which losses it takes, what stops it, its optimiser and its random numbers."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from raising import own_error
from torch import Tensor, nn
from toy import (
    CONFIG,
    DIM,
    Toy,
    assert_equal_weights,
    assert_same,
    changed,
    composed,
    encoder,
    first_epoch,
    stepped,
    weights,
)

import fusecomp as fc
from fusecomp.training import NonFiniteError, batches
from fusecomp.types import Batch


def test_what_is_no_batch_is_named_and_nothing_is_updated(tmp_path: Path) -> None:
    data, model = Toy(tmp_path), composed()
    trainer, before = fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG), weights(model)
    trainer.prepare(data)
    for value in (data.triplets(), None, data, (1, 2), Batch, "batch"):
        assert own_error(trainer.step, value).startswith("batch must be a Batch, as "), value
    assert not changed(before, weights(model))
    assert trainer.steps == 0


# Losses


def test_a_plain_function_is_a_loss(tmp_path: Path) -> None:
    run = fc.Trainer(composed(), loss=lambda q, t: ((q - t) ** 2).mean(), config=CONFIG).fit(
        Toy(tmp_path)
    )
    assert run.history[-1]["loss"] < run.history[0]["loss"]


@pytest.mark.parametrize("wanted", ["target_ids", "both", "none"])
def test_a_loss_gets_the_ids_that_it_names(tmp_path: Path, wanted: str) -> None:
    data = Toy(tmp_path)
    seen: list[dict[str, Tensor]] = []

    def by_target(query: Tensor, target: Tensor, target_ids: Tensor) -> Tensor:
        seen.append({"target_ids": target_ids})
        return (query * target).sum()

    def by_both(q: Tensor, t: Tensor, *, reference_ids: Tensor, target_ids: Tensor) -> Tensor:
        seen.append({"target_ids": target_ids, "reference_ids": reference_ids})
        return (q * t).sum()

    def unnamed(query: Tensor, target: Tensor, **ids: Tensor) -> Tensor:
        seen.append(ids)
        return (query * target).sum()

    losses: dict[str, Any] = {"target_ids": by_target, "both": by_both, "none": unnamed}
    loss = losses[wanted]
    trainer = fc.Trainer(composed(), loss=loss, config=CONFIG)
    batch = next(first_epoch(trainer, data))
    trainer.step(batch)
    names = {"target_ids": ["target_ids"], "both": ["target_ids", "reference_ids"], "none": []}
    expected = {name: getattr(batch, name) for name in names[wanted]}
    assert_same(seen[0], expected)


def test_a_loss_must_be_a_scalar(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scalar, got \[4\]"):
        fc.Trainer(composed(), loss=lambda q, t: (q * t).sum(1), config=CONFIG).fit(Toy(tmp_path))


# torch.compile itself looks at the gradient of each input.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_compiled_loss_gets_what_the_loss_names(tmp_path: Path) -> None:
    losses: list[Any] = [fc.InfoNCE(), torch.compile(fc.InfoNCE(), backend="eager")]
    models = [composed(0.0), composed(0.0)]
    for model, loss in zip(models, losses, strict=True):
        fc.Trainer(model, loss=loss, config=replace(CONFIG, epochs=1)).fit(Toy(tmp_path))
    one, other = map(weights, models)
    for name in one:
        torch.testing.assert_close(one[name], other[name])


def test_a_loss_without_a_signature_gets_no_ids(tmp_path: Path) -> None:
    run = fc.Trainer(composed(), loss=torch.dist, config=CONFIG).fit(Toy(tmp_path))
    assert len(run.history) == CONFIG.epochs


# What is not finite


def test_nan_names_the_rows_and_updates_nothing(tmp_path: Path) -> None:
    data, model = Toy(tmp_path), composed()
    trainer = fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, cache=False))
    batch = next(first_epoch(trainer, data))
    batch.reference[2] = torch.nan
    before, state = weights(model), copy.deepcopy(trainer.optimizer.state_dict())
    with pytest.raises(NonFiniteError, match=rf"\['{batch.query_ids[2]}'\].*nothing was updated"):
        trainer.step(batch)
    assert not changed(before, weights(model))
    assert trainer.optimizer.state_dict() == state
    assert trainer.steps == 0


def test_an_infinite_loss_of_finite_features_says_so(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="all features are finite"):
        fc.Trainer(composed(), loss=lambda q, t: (q * t).sum() / 0, config=CONFIG).fit(
            Toy(tmp_path)
        )


def test_a_broken_gradient_names_its_weights_and_updates_nothing(tmp_path: Path) -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(DIM))

        def forward(self, image: Tensor, text: Tensor) -> Tensor:
            return image + text + self.scale.abs().sqrt()

    model = fc.ComposedEncoder(encoder(), Root())
    before = weights(model)
    with pytest.raises(NonFiniteError, match=r"gradients of \['fusion.scale'\] hold NaN"):
        stepped(model, tmp_path)
    assert not changed(before, weights(model))


# The optimiser


@pytest.mark.parametrize(
    ("settings", "defaults"),
    [
        (
            {"optimizer": "adam", "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.25},
            {"lr": 0.05, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.25},
        ),
        ({"optimizer": "adam"}, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}),
        (
            {"optimizer": "adamw", "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.25},
            {"lr": 0.05, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.25},
        ),
        ({"optimizer": "adamw"}, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}),
        ({"optimizer": "sgd", "weight_decay": 0.25}, {"lr": 0.05, "weight_decay": 0.25}),
        ({"optimizer": "sgd"}, {"weight_decay": 0.0, "momentum": 0}),
    ],
)
def test_the_optimiser_has_the_settings(
    tmp_path: Path, settings: dict[str, Any], defaults: dict[str, Any]
) -> None:
    config = replace(CONFIG, **settings)
    optimizer = fc.Trainer(composed(), loss=fc.InfoNCE(), config=config).optimizer
    assert type(optimizer).__name__.lower() == config.optimizer
    matrices, vectors = (
        optimizer.param_groups
        if defaults["weight_decay"]
        else (
            *optimizer.param_groups,
            optimizer.param_groups[0],
        )
    )
    assert {name: matrices[name] for name in defaults} == defaults
    assert {name: vectors[name] for name in defaults} == {**defaults, "weight_decay": 0.0}
    assert {p.ndim for p in matrices["params"]} >= {2}
    if vectors is not matrices:
        assert {p.ndim for p in vectors["params"]} == {1}


# Random numbers


def test_a_step_leaves_the_callers_random_stream_alone(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    trainer = fc.Trainer(composed(), loss=fc.InfoNCE(), config=CONFIG)
    batch = next(first_epoch(trainer, data))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer.step(batch)
    assert torch.equal(torch.rand(3), expected)


def test_training_does_not_depend_on_the_global_seed(tmp_path: Path) -> None:
    models = [composed(), composed()]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG).fit(Toy(tmp_path))
    assert_equal_weights(*models)


def test_seeds_matter(tmp_path: Path) -> None:
    models = [composed(), composed()]
    for seed, model in enumerate(models):
        fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, seed=seed)).fit(Toy(tmp_path))
    assert changed(weights(models[0]), weights(models[1]))


# A loop of one's own


def test_an_own_loop_equals_fit(tmp_path: Path) -> None:
    data, models = Toy(tmp_path), [composed(), composed()]
    fc.Trainer(models[0], loss=fc.InfoNCE(), config=CONFIG).fit(data)
    trainer = fc.Trainer(models[1], loss=fc.InfoNCE(), config=CONFIG)
    encoder = trainer.prepare(data)
    for epoch in range(CONFIG.epochs):
        for batch in batches(data, encoder, CONFIG, epoch):
            trainer.step(batch)
    assert_equal_weights(*models)

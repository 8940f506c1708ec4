"""Train and eval mode: of what learns, of what is frozen, and given back afterwards."""

from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn
from toy import (
    CONFIG,
    DIM,
    Toy,
    WordText,
    assert_equal_weights,
    changed,
    composed,
    encoder,
    first_epoch,
    stepped,
    weights,
)

import fusecomp as fc


@pytest.mark.parametrize(("mode", "expected"), [("eval", False), ("train", True)])
def test_the_encoders_mode(tmp_path: Path, mode: str, expected: bool) -> None:
    live = encoder(dropout=0.5)
    stepped(fc.ComposedEncoder(live, fc.Sum()), tmp_path, trainable="text", encoder_mode=mode)
    assert live.get_submodule("text.dropout").training is expected


def test_a_frozen_tower_stays_in_eval_mode(tmp_path: Path) -> None:
    image = nn.Sequential(nn.Linear(4, DIM), nn.BatchNorm1d(DIM))
    live = fc.DualEncoder(image, WordText(), encoder().load_image)
    before = weights(image)
    stepped(fc.ComposedEncoder(live, fc.Sum()), tmp_path, trainable="text", encoder_mode="train")
    assert not image[1].training
    assert not changed(before, weights(image))


def test_a_frozen_fusion_has_no_dropout(tmp_path: Path) -> None:
    model = composed()
    stepped(model, tmp_path, trainable="text")
    assert not model.get_submodule("fusion").training


def test_modes_and_gradients_are_given_back(tmp_path: Path) -> None:
    model = composed()
    model.eval()
    frozen = model.get_parameter("encoder.image.weight").requires_grad_(False)
    fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG).fit(Toy(tmp_path))
    assert not any(module.training for module in model.modules())
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p is not frozen)

    def failing(query: Tensor, target: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fc.Trainer(model, loss=failing, config=CONFIG).fit(Toy(tmp_path))
    assert not any(module.training for module in model.modules())


def test_an_eval_call_between_steps_does_not_switch_dropout_off(tmp_path: Path) -> None:
    models = [composed(), composed()]
    for model, interrupt in zip(models, (False, True), strict=True):
        trainer = fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG)
        made = first_epoch(trainer, Toy(tmp_path))
        trainer.step(next(made))
        if interrupt:
            model.eval()
        trainer.step(next(made))
    assert_equal_weights(*models)


def test_two_trainers_of_one_model_do_not_disturb_each_other(tmp_path: Path) -> None:
    model = composed()
    text, _ = (
        fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, trainable=train))
        for train in ("text", "fusion")
    )
    before = weights(model)
    text.fit(Toy(tmp_path))
    assert {name.split(".")[1] for name in changed(before, weights(model))} == {"text"}

"""What cannot work or would learn wrongly is refused before the first step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import CONFIG, DIM, IMAGES, Toy, assert_equal_weights, composed, encoder, headed

import fusecomp as fc
from fusecomp import losses
from fusecomp.losses import Bank


def banked(ids: Tensor | None = None, dim: int = DIM) -> fc.InfoNCE:
    ids = torch.arange(IMAGES) if ids is None else ids
    return fc.InfoNCE(memory=Bank(torch.ones(len(ids), dim), ids))


def trainer(model: fc.ComposedEncoder, loss: Any, trainable: Any = "fusion") -> fc.Trainer:
    return fc.Trainer(model, loss=loss, config=replace(CONFIG, trainable=trainable))


@pytest.mark.parametrize("trainable", ["both", "image", ("fusion", "image"), "encoder.image.*"])
def test_a_bank_is_refused_where_images_learn(trainable: Any) -> None:
    combined = losses.CombinedLoss({"find": (1.0, banked())})
    for loss, name in ((banked(), "loss.memory"), (combined, "loss.find.memory")):
        with pytest.raises(ValueError, match=f"{name} is a Bank.*encoder.image.weight"):
            trainer(composed(), loss, trainable)


def test_a_bank_is_refused_where_the_head_of_images_learns() -> None:
    with pytest.raises(ValueError, match=r"trainable='text' encoder\.heads.image.weight"):
        trainer(headed(), banked(dim=DIM + 1), "text")
    model = headed()
    model.get_submodule("encoder.heads.image").requires_grad_(False)
    trainer(model, banked(dim=DIM + 1), "text")
    trainer(composed(), banked(), ("text", "fusion"))
    trainer(composed(), fc.InfoNCE(memory=losses.Queue(4, DIM)), "both")


def test_a_stage_with_a_bank_and_moving_images_is_refused() -> None:
    both = replace(CONFIG, trainable="both")
    for pair in (banked(), (banked(), fc.InfoNCE())):
        with pytest.raises(ValueError, match=r"loss.memory is a Bank\(24, dim=6\) .*'both'"):
            fc.TwoStageTrainer(encoder(), fc.Combiner(DIM), loss=pair, stage1=both, stage2=CONFIG)
    fc.TwoStageTrainer(
        encoder(), fc.Combiner(DIM), loss=(fc.InfoNCE(), banked()), stage1=both, stage2=CONFIG
    )


@pytest.mark.parametrize("begin", [fc.Trainer.fit, fc.Trainer.prepare])
def test_ids_that_no_image_has_are_refused(tmp_path: Path, begin: Callable[..., object]) -> None:
    loss = banked(torch.tensor([0, IMAGES, IMAGES + 7]))
    with pytest.raises(ValueError, match=r"loss.memory has the ids \[24, 31\].* 24 images"):
        begin(trainer(composed(), loss), Toy(tmp_path))


def misspelt(query: Tensor, target: Tensor, *, references: Tensor) -> Tensor:
    return query.sum()


class Misspelt(nn.Linear):
    def forward(self, image: Tensor, text: Tensor, text_token: Tensor) -> Tensor:  # type: ignore[override]
        return image


def test_a_keyword_that_nothing_gives_is_named_when_the_part_is_taken() -> None:
    known = "can name target_ids, reference_ids, reference, similarity"
    with pytest.raises(ValueError, match=f"the loss .*misspelt needs references, .*{known}"):
        trainer(composed(), misspelt)
    with pytest.raises(ValueError, match=f"the loss 'own' .*misspelt needs references, .*{known}"):
        losses.CombinedLoss({"own": (1.0, misspelt)})  # type: ignore[dict-item]
    known = "can name image_tokens, text_tokens, reference_text"
    with pytest.raises(ValueError, match=f"the fusion .*Misspelt needs text_token, .*{known}"):
        fc.ComposedEncoder(encoder(), Misspelt(DIM, DIM))


class Refusing:
    """Stage 1 must not come to a step."""

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        raise AssertionError("a step was made")


class Prompted(fc.Combiner):
    def forward(self, image: Tensor, text: Tensor, *, reference_text: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(image, text)


WRONG: dict[str, tuple[Any, Any, str]] = {
    "Combiner": (lambda: fc.Combiner(DIM + 1), fc.InfoNCE, str(DIM + 1)),
    "bank": (lambda: fc.Combiner(DIM), lambda: banked(dim=DIM + 1), "its dim is another"),
    "queue": (
        lambda: fc.Combiner(DIM),
        lambda: fc.InfoNCE(memory=losses.Queue(4, DIM + 1)),
        "its dim is another",
    ),
    "ids": (
        lambda: fc.Combiner(DIM),
        lambda: banked(torch.tensor([IMAGES])),
        "loss.memory has the ids",
    ),
    "prompts": (lambda: Prompted(DIM), fc.InfoNCE, "this Toy has no reference_texts"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_parts_of_stage_2_are_found_before_stage_1(tmp_path: Path, name: str) -> None:
    fusion, loss, message = WRONG[name]
    both = fc.TwoStageTrainer(
        encoder(),
        fusion(),
        loss=(fc.InfoNCE(), loss()),
        stage1=replace(CONFIG, trainable="text"),
        stage2=CONFIG,
        callbacks=(Refusing(),),
    )
    with pytest.raises(ValueError, match=message):
        both.fit(Toy(tmp_path))


def test_the_first_look_draws_no_numbers_and_leaves_modes_alone(tmp_path: Path) -> None:
    from fusecomp.training._early_checks import try_parts

    model, before = composed(), composed()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    try_parts(model, fc.InfoNCE(), Toy(tmp_path), CONFIG)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert_equal_weights(model, before)

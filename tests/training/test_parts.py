"""Encoded by parts, or computed again, a batch has the gradient of the whole."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import CONFIG, LOSSES, all_weights, composed, furthest, trained
from torch import Tensor
from toy import NormedSum, Toy, first_epoch, load

import fusecomp as fc
from fusecomp.training._gradient_cache import GradientCache


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("micro_batch", [1, 3, 10])
@pytest.mark.parametrize("train", [("both", "fusion"), "text", "fusion"])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(
    tmp_path: Path, loss: str, micro_batch: int, train: Any
) -> None:
    config = replace(CONFIG, trainable=train, encoder_mode="train")
    whole = trained(tmp_path, config, loss)
    parts = trained(tmp_path, replace(config, micro_batch_size=micro_batch), loss)
    assert furthest(whole, parts) < 1e-10
    assert furthest(whole, untrained(loss)) > 1e-3


def untrained(loss: str) -> dict[str, Tensor]:
    return all_weights(composed(), LOSSES[loss]())


def only_texts(image: Tensor, text: Tensor) -> Tensor:
    return text


@pytest.mark.parametrize("train", ["text", "image"])
@pytest.mark.parametrize("fusion", [fc.fusions.Sum(), only_texts], ids=["sum", "texts"])
def test_parts_may_have_a_side_without_a_gradient(tmp_path: Path, train: str, fusion: Any) -> None:
    """A frozen tower that is computed all the same, or features that no query needs."""
    results = []
    for micro_batch in (None, 3):
        model = fc.ComposedEncoder(composed().encoder, fusion)
        config = replace(CONFIG, trainable=train, cache=False, micro_batch_size=micro_batch)
        fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config).fit(Toy(tmp_path, rows=17))
        results.append(all_weights(model, None))
    assert furthest(*results) < 1e-10
    assert furthest(results[0], all_weights(composed().encoder, None, "encoder.")) > 1e-3


def test_a_scaled_loss_gives_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    """As fp16 needs it: the scale reaches encoders, fusion and loss once, and is taken out."""
    results = []
    for scale in (None, 1024.0):
        model, loss = composed(), LOSSES["learnable"]()
        config = replace(CONFIG, micro_batch_size=3, max_grad_norm=0.5)
        trainer = fc.Trainer(model, loss=loss, config=config)
        if scale is not None:
            trainer._step.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for batch in first_epoch(trainer, Toy(tmp_path, rows=20)):
            trainer.step(batch)
        results.append(all_weights(model, loss))
    assert furthest(*results) == 0
    assert furthest(results[0], untrained("learnable")) > 1e-3


class OneGraph(GradientCache):
    """The reference: the same parts, but their graphs are kept."""

    def __init__(self, encode: Any, parts: int, learns: bool) -> None:
        pieces = [encode(part) for part in range(parts)]
        self.features = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def backward(self) -> None:
        """Nothing is left to do."""


def test_parts_draw_the_same_random_numbers_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, micro_batch_size=3, encoder_mode="train")
    cached = trained(tmp_path, config, "InfoNCE", dropout=0.5)
    monkeypatch.setattr("fusecomp.training._step.GradientCache", OneGraph)
    assert furthest(trained(tmp_path, config, "InfoNCE", dropout=0.5), cached) < 1e-12


def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    config = replace(CONFIG, encoder_mode="train")
    kept = trained(tmp_path, config, "InfoNCE", dropout=0.5)
    again = trained(tmp_path, replace(config, gradient_checkpointing=True), "InfoNCE", dropout=0.5)
    assert furthest(kept, again) < 1e-12


def test_recomputing_calls_the_encoder_again(tmp_path: Path) -> None:
    calls = []
    for checkpointing in (False, True):
        model, config = (
            composed(),
            replace(CONFIG, trainable="both", gradient_checkpointing=checkpointing),
        )
        # Before the call: a recomputation ends as soon as it has what it needs.
        image = model.get_submodule("encoder.image")
        image.register_forward_pre_hook(lambda *_: calls.append("image"))
        trainer = fc.Trainer(model, loss=fc.InfoNCE(), config=config)
        trainer.step(next(first_epoch(trainer, Toy(tmp_path))))
    assert len(calls) == 2 + 4


def test_both_passes_compute_the_same_features_under_autocast(tmp_path: Path) -> None:
    seen: list[list[Tensor]] = [[], []]

    class Watched(GradientCache):
        def __init__(self, encode: Any, parts: int, learns: bool) -> None:
            def watched(part: int) -> Any:
                features = encode(part)
                seen[int(torch.is_grad_enabled())] += [
                    feature.detach() for feature in features.values()
                ]
                return features

            super().__init__(watched, parts, learns)

    model = composed().float()
    config = replace(CONFIG, epochs=1, micro_batch_size=4, precision="bf16", cache=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusecomp.training._step.GradientCache", Watched)
        data = Toy(tmp_path, rows=10)
        model.encoder.load_image = load  # type: ignore[attr-defined]
        fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config).fit(data)
    assert len(seen[0]) == len(seen[1]) == 3 * 3
    assert seen[0][0].dtype == torch.bfloat16
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def test_batchnorm_that_learns_from_parts_is_warned_of() -> None:
    loss = fc.InfoNCE()
    config = replace(CONFIG, micro_batch_size=5, encoder_mode="train")
    with pytest.warns(UserWarning, match="BatchNorm of the encoder"):
        fc.Trainer(composed(batchnorm=True), loss=loss, config=config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fc.Trainer(composed(batchnorm=True), loss=loss, config=replace(config, encoder_mode="eval"))
        fc.Trainer(
            composed(batchnorm=True), loss=loss, config=replace(config, micro_batch_size=None)
        )
        # The fusion sees the whole batch.
        normed = fc.ComposedEncoder(composed().encoder, NormedSum())
        fc.Trainer(normed, loss=loss, config=replace(config, trainable="fusion"))

"""Text features of another width than image features, from the encoder to the saved model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from raising import own_error
from torch import Tensor, nn
from toy import CONFIG, DIM, Toy, WordText, changed, load, weights

import fusecomp as fc

IMAGE = 9


class Gate(nn.Module):
    """A fusion of one's own: the text's features [B, T] scale the image's [B, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(DIM, IMAGE)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        query: Tensor = image * self.layer(text).tanh()
        return query


def live() -> fc.DualEncoder:
    torch.manual_seed(0)
    return fc.DualEncoder(nn.Linear(4, IMAGE), WordText(), load, image_dim=IMAGE, text_dim=DIM)


def stored(data: Toy) -> fc.CachedEncoder:
    return fc.CachedEncoder.build(live(), data, path=data.root / "features.safetensors")


@pytest.mark.parametrize("make", [lambda data: live(), stored], ids=["live", "cached"])
def test_a_fusion_of_two_widths_trains_is_evaluated_saved_and_loaded(
    tmp_path: Path, make: Callable[[Toy], fc.Encoder]
) -> None:
    data = Toy(tmp_path)
    make(data)
    encoder, fusion = make(data), Gate()  # features are read from their file the second time
    before = weights(fusion)
    run = fc.TwoStageTrainer(encoder, fusion, loss=fc.InfoNCE(0.1), stage1=None, stage2=CONFIG).fit(
        data, data
    )
    assert changed(before, weights(fusion)) == set(before)
    run.model.save(tmp_path / "model")
    again = fc.ComposedEncoder.load(tmp_path / "model", make(data), Gate())
    assert dict(fc.evaluate(again, data)) == dict(fc.evaluate(run.model, data))


@pytest.mark.parametrize("side", ["text", "image"])
def test_a_side_learns_next_to_a_cached_one_of_another_width(tmp_path: Path, side: str) -> None:
    models, data = [], Toy(tmp_path)
    for cache in (True, False):
        encoder = live()
        models.append(fc.ComposedEncoder(encoder, Gate()))
        before = weights(models[-1])
        config = replace(CONFIG, trainable=(side, "fusion"), cache=cache, optimizer="sgd")
        fc.Trainer(models[-1], loss=fc.InfoNCE(0.1), config=config).fit(data)
        moved = {name.split(".")[1] for name in changed(before, weights(models[-1]))}
        assert moved == {side, "layer"}
    pairs = zip(*(weights(model).values() for model in models), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [fc.Sum, lambda: fc.Combiner(IMAGE)], ids=["Sum", "Combiner"])
def test_a_fusion_of_one_width_names_both(make: Callable[[], nn.Module]) -> None:
    fusion = make()
    message = own_error(fusion, torch.ones(2, IMAGE), torch.ones(2, DIM))
    assert message.startswith(
        f"{type(fusion).__name__} needs image and text features of one width, got image features "
        f"of width {IMAGE} and text features of width {DIM}: "
    )


def test_the_query_has_the_width_of_the_images() -> None:
    model = fc.ComposedEncoder(live(), lambda image, text: text)
    message = own_error(model.encode_query, torch.ones(2, 4), ["word 1", "word 2"])
    assert message.startswith(f"the fusion returned [2, {DIM}] for features [2, {IMAGE}]: ")

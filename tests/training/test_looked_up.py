"""What does not learn is encoded once and looked up, and the result is that of encoding it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import CONFIG, DIM, Toy, WordText, composed, encoder, headed

import fusecomp as fc
from fusecomp.training import batches


@pytest.mark.parametrize("make", [partial(composed, dropout=0.0), headed], ids=["plain", "heads"])
@pytest.mark.parametrize("train", ["fusion", "text", "image", ("text", "fusion")])
def test_cached_equals_computed(
    tmp_path: Path, train: str | tuple[str, ...], make: Callable[[], fc.ComposedEncoder]
) -> None:
    models = [make(), make()]
    data = Toy(tmp_path)
    for model, cache in zip(models, (True, False), strict=True):
        # Adam would turn rounding noise in tiny gradients into other weights.
        config = replace(CONFIG, trainable=train, cache=cache, optimizer="sgd")
        fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config).fit(data, data)
    for name, tensor in models[0].state_dict().items():
        torch.testing.assert_close(tensor, models[1].state_dict()[name], rtol=1e-4, atol=1e-5)


class Letters(nn.Module):
    """A text's features from all its letters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(48, DIM), nn.Tanh(), nn.Linear(DIM, DIM))

    def forward(self, texts: list[str]) -> Tensor:
        codes = [[ord(letter) / 64 for letter in text.ljust(48)] for text in texts]
        features: Tensor = self.layers(torch.tensor(codes))
        return features


def load_name(path: Path) -> Tensor:
    return torch.tensor(list(path.read_bytes().ljust(10))).float() / 64


@pytest.mark.parametrize("stored", [True, False])
def test_20_steps_of_stage_2_from_stored_features_are_those_of_the_encoder(
    tiny_fashioniq: Path, tmp_path: Path, stored: bool
) -> None:
    train = fc.datasets.FashionIQ(tiny_fashioniq, "train")
    torch.manual_seed(0)
    live = fc.DualEncoder(nn.Linear(10, DIM), Letters(), load_name)
    config = replace(CONFIG, epochs=5, batch_size=6, lr=1e-3)
    texts = [t.texts[0] for epoch in range(5) for t in train.triplets(epoch)]
    # All four texts that the published training draws from a pair occur.
    assert len({(text.startswith("Is"), " and " in text) for text in texts}) == 4

    def losses(encoder: fc.Encoder, cache: bool) -> list[float]:
        torch.manual_seed(1)
        model = fc.ComposedEncoder(encoder, fc.Combiner(DIM, dropout=0.0))
        trainer = fc.Trainer(model, loss=fc.InfoNCE(0.1), config=replace(config, cache=cache))
        prepared = trainer.prepare(train)
        epochs = (batches(train, prepared, trainer.config, epoch) for epoch in range(5))
        return [trainer.step(batch).item() for epoch in epochs for batch in epoch]

    expected = losses(live, cache=False)
    path = tmp_path / "features.safetensors"
    encoder = fc.CachedEncoder.build(live, train, path=path) if stored else live
    assert len(expected) == 20
    assert losses(encoder, cache=not stored) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("train", "cached"),
    [("fusion", {"image", "text"}), ("text", {"image"}), ("image", {"text"}), ("both", set())],
)
def test_what_does_not_learn_is_looked_up(tmp_path: Path, train: str, cached: set[str]) -> None:
    model = composed()
    trainer = fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, trainable=train))
    assert set(getattr(trainer.prepare(Toy(tmp_path)), "lookup", {})) == cached
    off = fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, trainable=train, cache=False))
    assert off.prepare(Toy(tmp_path)) is model.encoder


def test_each_image_is_encoded_once(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        rows = 0

        def forward(self, images: Tensor) -> Tensor:
            self.rows += len(images)
            return super().forward(images)

    image, plain = Counting(4, DIM), encoder()
    live = fc.DualEncoder(image=image, text=plain.text, load_image=plain.load_image)
    data = Toy(tmp_path)
    fc.Trainer(
        fc.ComposedEncoder(live, fc.Sum()),
        loss=fc.InfoNCE(),
        config=replace(CONFIG, trainable="text"),
    ).fit(data, data)
    assert image.rows == len(data.image_ids)


def test_a_layer_of_both_towers_is_never_stale(tmp_path: Path) -> None:
    """What learns for one side serves the other too, so neither may be cached."""
    evaluations = []
    for cache in (True, False):
        torch.manual_seed(0)
        layer = nn.Linear(DIM, DIM)
        image, text = nn.Sequential(nn.Linear(4, DIM), layer), nn.Sequential(WordText(), layer)
        live = fc.DualEncoder(image, text, encoder().load_image)
        model, data = fc.ComposedEncoder(live, fc.Sum()), Toy(tmp_path)
        config = replace(CONFIG, trainable="text", cache=cache, optimizer="sgd", epochs=1)
        prepared = fc.Trainer(model, loss=fc.InfoNCE(), config=config).prepare(data, data)
        assert "image" not in getattr(prepared, "lookup", {})
        before = layer.weight.detach().clone()
        run = fc.Trainer(model, loss=fc.InfoNCE(), config=config).fit(data, data)
        evaluations.append(dict(run.metrics))
        assert not torch.equal(layer.weight, before)
    assert evaluations[0] == evaluations[1]


def test_the_run_holds_the_users_own_encoder(tmp_path: Path) -> None:
    model = composed()
    live = model.encoder
    run = fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG).fit(Toy(tmp_path))
    assert run.model is model
    assert run.model.encoder is live


# Devices


def test_parts_on_two_devices_are_named_wherever_they_meet(tmp_path: Path) -> None:
    model, data = fc.ComposedEncoder(encoder(), fc.Combiner(DIM).to("meta")), Toy(tmp_path)
    calls: list[Callable[[], Any]] = [
        lambda: fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG),
        lambda: fc.rank(model, data),
        lambda: fc.evaluate(model, data),
        lambda: model.encode_query([data.path("0")], ["word 0"]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="encoder is on cpu and the fusion on meta: move both"):
            call()


class Plain:
    """An encoder that is no module, and so on no device."""

    def __init__(self) -> None:
        self._behind = encoder()
        self.load_image = self._behind.load_image

    def encode_image(self, images: Tensor) -> Tensor:
        return self._behind.encode_image(images)

    def encode_text(self, texts: list[str]) -> Tensor:
        return self._behind.encode_text(texts)


def test_features_of_an_encoder_on_no_device_are_looked_up_where_the_fusion_is(
    tmp_path: Path,
) -> None:
    model = fc.ComposedEncoder(Plain(), fc.Combiner(DIM).to("meta"))
    trainer = fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG)
    tables = trainer.prepare(Toy(tmp_path)).tables.values()  # type: ignore[attr-defined]
    assert [table.features.device.type for table in tables] == ["meta", "meta"]

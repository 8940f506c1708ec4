"""A workdir refuses another run than the one that began in it, and names what differs."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import fit
from torch import Tensor, nn
from toy import DIM, IMAGES, Toy, composed, encoder, load

import fusecomp as fc
from fusecomp.evaluation import Recall

BELONGS = "belongs to another run: "


def by_hand(weight: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(query: Tensor, target: Tensor) -> Tensor:
        return weight * (query - target).square().sum()

    return loss


class OwnLoss:
    """A user's own, without a repr."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, query: Tensor, target: Tensor) -> Tensor:
        return self.weight * (query - target).square().sum()


class OwnModule(nn.Module):
    """A user's own module, whose repr does not show its weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self._weight = weight

    def forward(self, query: Tensor, target: Tensor) -> Tensor:
        return self._weight * (query - target).square().sum()


def scaled(scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda image, text: image + scale * text


def bank(seed: int) -> nn.Module:
    features = torch.randn(IMAGES, DIM, generator=torch.Generator().manual_seed(seed))
    return fc.InfoNCE(memory=fc.losses.Bank(features, torch.arange(IMAGES)))


def teacher(seed: int) -> nn.Module:
    features = torch.randn(IMAGES, DIM, generator=torch.Generator().manual_seed(seed))
    ids = torch.arange(IMAGES)
    pairs = torch.stack([ids, (3 * ids + 1) % IMAGES], dim=1)
    return fc.losses.DistillationLoss(features, pairs, features, ids)


# By name: a loss, another one, and how what differs is named.
LOSSES: dict[str, tuple[Any, Any, str]] = {
    "temperature": (fc.InfoNCE(0.2), fc.InfoNCE(0.1), "loss"),
    "function's value": (by_hand(1), by_hand(2), "loss was"),
    "lambda": (lambda q, t: (q - t).square().sum(), lambda q, t: (q - t).abs().sum(), "loss was"),
    "own object": (OwnLoss(1), OwnLoss(2), "loss was"),
    "own module": (OwnModule(1), OwnModule(2), "loss._weight was"),
    "object for function": (OwnLoss(1), by_hand(1), "loss was"),
    "weight of a part": (
        fc.losses.CombinedLoss({"a": (1.0, fc.InfoNCE())}),
        fc.losses.CombinedLoss({"a": (2.0, fc.InfoNCE())}),
        "loss",
    ),
    "margin": (fc.losses.TripletMarginLoss(0.1), fc.losses.TripletMarginLoss(0.2), "loss"),
    "bank": (bank(0), bank(1), "loss"),
    "teacher": (teacher(0), teacher(1), "loss"),
}


@pytest.mark.parametrize(("first", "second", "named"), LOSSES.values(), ids=LOSSES.keys())
def test_another_loss_is_named(tmp_path: Path, first: Any, second: Any, named: str) -> None:
    again = copy.deepcopy(first)
    run = fit(tmp_path, loss=first)
    assert fit(tmp_path, loss=again).metrics == run.metrics  # the same one is none
    with pytest.raises(ValueError, match=BELONGS + named):
        fit(tmp_path, loss=second)


# By name: a fusion, another one, how what differs is named, and what learns.
FUSIONS: dict[str, tuple[Any, Any, str, str]] = {
    "dropout": (
        fc.Combiner(DIM, dropout=0.5),
        fc.Combiner(DIM, dropout=0.1),
        r"fusion\.dropout was '0.5'",
        "fusion",
    ),
    "width": (fc.Combiner(DIM), fc.Combiner(DIM, hidden_dim=4), "learning weights", "fusion"),
    "closed-over value": (scaled(1), scaled(2), "fusion was", "text"),
    "lambda": (lambda i, t: i + t, lambda i, t: i - t, "fusion", "text"),
    "class": (fc.Sum(), scaled(1), "fusion was 'Sum'", "text"),
}


@pytest.mark.parametrize(
    ("first", "second", "named", "trainable"), FUSIONS.values(), ids=FUSIONS.keys()
)
def test_another_fusion_is_named(
    tmp_path: Path, first: Any, second: Any, named: str, trainable: str
) -> None:
    again = copy.deepcopy(first)
    for fusion in (first, again):
        fit(tmp_path, model=fc.ComposedEncoder(encoder(), fusion), trainable=trainable)
    with pytest.raises(ValueError, match=BELONGS + named):
        fit(tmp_path, model=fc.ComposedEncoder(encoder(), second), trainable=trainable)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.06}, "config.lr was 0.05 and is now 0.06"),
        ({"epochs": 1}, "config.epochs was 2 and is now 1"),
        ({"seed": 1}, "config.seed"),
        ({"trainable": "text"}, "config.trainable"),
    ],
)
def test_another_config_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    fit(tmp_path, epochs=2)
    with pytest.raises(ValueError, match=BELONGS + message):
        fit(tmp_path, **{"epochs": 2, **change})


class OtherGallery(Toy):
    """The same queries in a smaller gallery."""

    def tasks(self) -> list[Any]:
        return [replace(task, metrics=[Recall(1)]) for task in super().tasks()]


def test_another_dataset_is_named(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    fit(tmp_path, data=data, validation=data)
    cases: list[tuple[Any, Any, str]] = [
        (Toy(tmp_path, rows=12), data, "train"),
        (Toy(tmp_path, start=1), data, "train"),
        (data, None, "validation"),
        (data, OtherGallery(tmp_path), r"validation\.tasks was"),
    ]
    for train, validation, named in cases:
        with pytest.raises(ValueError, match=BELONGS + named):
            fit(tmp_path, data=train, validation=validation)


def with_image(image: nn.Module) -> fc.ComposedEncoder:
    """A model with another image tower."""
    model = composed()
    known: Any = model.encoder
    return fc.ComposedEncoder(fc.DualEncoder(image, known.text, load), model.fusion)


def test_another_activation_of_the_encoder_is_named(tmp_path: Path) -> None:
    def made(activation: nn.Module) -> fc.ComposedEncoder:
        torch.manual_seed(0)
        return with_image(nn.Sequential(nn.Linear(4, DIM), activation))

    fit(tmp_path, model=made(nn.ReLU()))
    with pytest.raises(ValueError, match=r"encoder\.image\.1 was 'ReLU' and is now 'GELU'"):
        fit(tmp_path, model=made(nn.GELU()))


def test_other_frozen_weights_are_another_run(tmp_path: Path) -> None:
    fit(tmp_path)
    other = fc.ComposedEncoder(encoder(seed=1), fc.Combiner(DIM))
    with pytest.raises(ValueError, match=f"{BELONGS}frozen weights .*torch.manual_seed"):
        fit(tmp_path, model=other)


class Centred(nn.Module):
    """An image side that takes a mean away, which is a buffer."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, DIM)
        self.mean: Tensor
        self.register_buffer("mean", torch.full((4,), mean))

    def forward(self, images: Tensor) -> Tensor:
        centred: Tensor = self.layer(images - self.mean)
        return centred


def test_another_buffer_of_what_is_frozen_is_another_run(tmp_path: Path) -> None:
    for _ in range(2):
        fit(tmp_path, model=with_image(Centred(0.0)))
    other = with_image(Centred(5.0))
    with pytest.raises(ValueError, match="frozen weights was"):
        fit(tmp_path, model=other)
    assert dict(other.named_buffers())["encoder.image.mean"].tolist() == [5.0] * 4


def test_other_cached_features_are_another_encoder(tmp_path: Path) -> None:
    data = Toy(tmp_path)

    def made(seed: int) -> fc.ComposedEncoder:
        cached = fc.CachedEncoder.build(encoder(seed), data)
        torch.manual_seed(0)
        return fc.ComposedEncoder(cached, fc.Combiner(DIM))

    fit(tmp_path, model=made(0))
    with pytest.raises(ValueError, match="frozen weights"):
        fit(tmp_path, model=made(1))


def test_compiled_or_not_it_is_the_same_run(tmp_path: Path) -> None:
    def made(compiled: bool) -> fc.ComposedEncoder:
        image: Any = encoder().image
        if compiled:
            image = torch.compile(image, backend="eager")
        return with_image(image)

    first = fit(tmp_path, model=made(False))
    assert fit(tmp_path, model=made(True)).metrics == first.metrics


def test_other_image_files_are_another_run(tmp_path: Path) -> None:
    fit(tmp_path)
    (tmp_path / "3.png").write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"train\.files was"):
        fit(tmp_path)


def test_one_missing_image_hides_no_other(tmp_path: Path) -> None:
    data = Toy(tmp_path)

    def made() -> fc.ComposedEncoder:
        torch.manual_seed(0)
        return fc.ComposedEncoder(cached, fc.Combiner(DIM))

    cached = fc.CachedEncoder.build(encoder(), data)
    (tmp_path / "3.png").unlink()
    fit(tmp_path, data=data, model=made())
    (tmp_path / "5.png").write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"train\.files was '0 bytes for image number 5'"):
        fit(tmp_path, data=data, model=made())


def test_images_that_are_gone_count_as_unchanged(tmp_path: Path) -> None:
    first = fit(tmp_path)
    data = Toy(tmp_path)
    (tmp_path / "3.png").unlink()
    with pytest.warns(UserWarning, match=r"train\.files: some images are not there"):
        again = fit(tmp_path, data=data)
    assert first.metrics == again.metrics


def test_a_part_that_tells_nothing_is_refused_with_the_way_out(tmp_path: Path) -> None:
    class Opaque:
        def __call__(self, query: Tensor, target: Tensor) -> Tensor:
            return (query - target).square().sum()

    with pytest.raises(ValueError, match="give it a __repr__"):
        fit(tmp_path, loss=Opaque())


def test_another_number_of_images_is_named(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    parts: dict[str, Any] = {"loss": fc.InfoNCE(), "workdir": tmp_path / "run"}
    config = fc.StageConfig(epochs=1, batch_size=4, lr=0.01)
    fc.Trainer(composed(), config=config, **parts).fit(data)
    data.image_ids = data.image_ids[:-1]
    with pytest.raises(ValueError, match=rf"{BELONGS}train.images was {IMAGES} and is now"):
        fc.Trainer(composed(), config=config, **parts).fit(data)

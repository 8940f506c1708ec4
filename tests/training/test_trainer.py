import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import DIM, Toy, WordText, encoder

import fusecomp as fc
from fusecomp.records import Batch
from fusecomp.training import NonFiniteError, batches

CONFIG = fc.StageConfig(epochs=3, batch_size=4, lr=0.05, optimizer="adam")


def composed(dropout: float = 0.5) -> fc.ComposedEncoder:
    live = encoder()
    return fc.ComposedEncoder(live, fc.Combiner(DIM, dropout=dropout))


def headed() -> fc.ComposedEncoder:
    """Both towers have a width of their own; heads bring them to a third one."""
    torch.manual_seed(0)
    text = WordText()
    live = fc.DualEncoder(
        nn.Linear(4, 5), text, encoder().load, image_dim=5, text_dim=DIM, dim=DIM + 1
    )
    return fc.ComposedEncoder(live, fc.Combiner(DIM + 1, dropout=0.0))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def assert_equal_weights(one: nn.Module, other: nn.Module) -> None:
    assert not changed(weights(one), weights(other))


# Parity with the published code.


def published_stage2(numbers: Any, **settings: Any) -> tuple[list[float], dict[str, Tensor]]:
    """Repeat the published 25 steps with the library's own trainer, in float64."""
    steps, size, dim = numbers["image"].shape
    rows = steps * size
    image, text, target = (
        numbers[name].reshape(rows, dim).astype("float64") for name in ("image", "text", "target")
    )
    names = [f"{row}" for row in range(2 * rows)]
    cached = fc.CachedEncoder.from_arrays(
        names, np.concatenate([image, target]), names[:rows], text
    )
    initial = {
        name.removeprefix("initial/"): torch.from_numpy(numbers[name]).double()
        for name in numbers.files
        if name.startswith("initial/")
    }
    projection, hidden = (len(initial[f"{n}_layer.bias"]) for n in ("text_projection", "combiner"))
    combiner = fc.Combiner(dim, projection, hidden, dropout=0.0).double()
    combiner.load_state_dict(initial)

    class Rows:
        image_ids = names

        def triplets(self, epoch: int = 0, seed: int = 0) -> list[fc.Triplet]:
            return [fc.Triplet(n, n, (n,), names[rows + i]) for i, n in enumerate(names[:rows])]

        def __len__(self) -> int:
            return int(rows)

    settings = {"epochs": 1, "batch_size": size, "lr": float(numbers["lr"]), **settings}
    loss = settings.pop("loss", fc.InfoNCE())
    config = fc.StageConfig(**settings)
    model = fc.ComposedEncoder(cached, combiner)
    trainer = fc.Trainer(model, Rows(), loss, config)  # type: ignore[arg-type]
    losses = []
    for start in range(0, rows, size):
        own = torch.arange(start, start + size)
        ones = torch.ones(size, dtype=torch.int64)
        batch = Batch(own, own, own + rows, ones, own, own, [names[i] for i in own.tolist()])
        losses.append(trainer.step(batch).item())
    return losses, combiner.state_dict()


def difference(numbers: Any, losses: list[float], final: dict[str, Tensor]) -> tuple[float, float]:
    by_loss = np.abs(np.array(losses) / numbers["losses"] - 1).max()
    by_weight = max(
        np.abs(tensor.numpy() - numbers[f"final/{name}"]).max() for name, tensor in final.items()
    )
    return float(by_loss), float(by_weight)


def test_25_published_steps(shared: Callable[[str], Path]) -> None:
    with np.load(shared("parity/combiner_training.npz")) as numbers:
        by_loss, by_weight = difference(numbers, *published_stage2(numbers, optimizer="adam"))
        assert by_loss < 1e-6
        assert by_weight < 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw"},
        {"optimizer": "adam", "loss": lambda q, t: (fc.InfoNCE()(q, t) + fc.InfoNCE()(t, q)) / 2},
        {"optimizer": "adam", "lr": 0.0},
    ],
    ids=["adamw", "symmetric", "untrained"],
)
def test_other_settings_miss_the_published_numbers(
    shared: Callable[[str], Path], settings: dict[str, Any]
) -> None:
    with np.load(shared("parity/combiner_training.npz")) as numbers:
        _, by_weight = difference(numbers, *published_stage2(numbers, **settings))
        assert by_weight > 1e-4


# What learns.


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("fusion", {"fusion"}),
        ("text", {"encoder.text"}),
        ("image", {"encoder.image"}),
        ("both", {"encoder.text", "encoder.image"}),
        (("text", "fusion"), {"encoder.text", "fusion"}),
        ("encoder.image.bias", {"encoder.image"}),
    ],
)
def test_only_what_is_named_learns(
    tmp_path: Path, train: str | tuple[str, ...], expected: set[str]
) -> None:
    model = composed()
    before = weights(model)
    fc.fit(model, Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, train=train))
    moved = changed(before, weights(model))
    groups = {"fusion" if n.startswith("fusion") else ".".join(n.split(".")[:2]) for n in moved}
    assert groups == expected
    if train == "encoder.image.bias":
        assert moved == {"encoder.image.bias"}
    assert {n for n, p in model.named_parameters() if p.requires_grad} >= moved


@pytest.mark.parametrize("train", ["text", "encoder.nothing.*", ("fusion", "texts")])
def test_naming_nothing_raises(tmp_path: Path, train: str | tuple[str, ...]) -> None:
    cached = fc.CachedEncoder.build(encoder(), Toy(tmp_path))
    model = fc.ComposedEncoder(cached, fc.Combiner(DIM))
    with pytest.raises(ValueError, match=r"towers|nothing that can learn"):
        fc.Trainer(model, Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, train=train))


def test_the_losses_own_parameters_learn(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(3.0))

        def forward(self, query: Tensor, target: Tensor) -> Tensor:
            return nn.functional.cross_entropy(
                self.scale * query @ target.T, torch.arange(len(query))
            )

    loss = Scaled()
    fc.fit(composed(), Toy(tmp_path), loss, CONFIG)
    assert loss.scale.item() != 3.0


# The step.


def test_a_plain_function_is_a_loss(tmp_path: Path) -> None:
    run = fc.fit(composed(), Toy(tmp_path), lambda q, t: ((q - t) ** 2).mean(), CONFIG)
    assert run.history[-1]["loss"] < run.history[0]["loss"]


@pytest.mark.parametrize("wanted", ["target_ids", "both", "any"])
def test_a_loss_gets_the_ids_that_it_accepts(tmp_path: Path, wanted: str) -> None:
    data = Toy(tmp_path)
    seen: list[dict[str, Tensor]] = []

    def by_target(query: Tensor, target: Tensor, target_ids: Tensor) -> Tensor:
        seen.append({"target_ids": target_ids})
        return (query * target).sum()

    def by_both(q: Tensor, t: Tensor, *, reference_ids: Tensor, target_ids: Tensor) -> Tensor:
        seen.append({"target_ids": target_ids, "reference_ids": reference_ids})
        return (q * t).sum()

    def by_any(query: Tensor, target: Tensor, **ids: Tensor) -> Tensor:
        seen.append(ids)
        return (query * target).sum()

    losses: dict[str, Any] = {"target_ids": by_target, "both": by_both, "any": by_any}
    loss = losses[wanted]
    trainer = fc.Trainer(composed(), data, loss, CONFIG)
    batch = next(batches(data, trainer.encoder, CONFIG, epoch=0))
    trainer.step(batch)
    assert torch.equal(seen[0]["target_ids"], batch.target_ids)
    assert set(seen[0]) == (
        {"target_ids"} | (set() if wanted == "target_ids" else {"reference_ids"})
    )


def test_a_loss_must_be_a_scalar(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scalar, got \[4\]"):
        fc.fit(composed(), Toy(tmp_path), lambda q, t: (q * t).sum(1), CONFIG)


def test_nan_names_the_rows_and_updates_nothing(tmp_path: Path) -> None:
    data, model = Toy(tmp_path), composed()
    trainer = fc.Trainer(model, data, fc.InfoNCE(), replace(CONFIG, cache=False))
    batch = next(batches(data, trainer.encoder, CONFIG, epoch=0))
    batch.reference[2] = torch.nan
    before, state = weights(model), copy.deepcopy(trainer.optimizer.state_dict())
    with pytest.raises(NonFiniteError, match=rf"\['{batch.query_ids[2]}'\].*nothing was updated"):
        trainer.step(batch)
    assert not changed(before, weights(model))
    assert trainer.optimizer.state_dict() == state
    assert trainer.steps == 0


def test_an_infinite_loss_of_finite_features_says_so(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="all features are finite"):
        fc.fit(composed(), Toy(tmp_path), lambda q, t: (q * t).sum() / 0, CONFIG)


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
    optimizer = fc.Trainer(composed(), Toy(tmp_path), fc.InfoNCE(), config).optimizer
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


def test_parts_on_two_devices_are_named_wherever_they_meet(tmp_path: Path) -> None:
    model, data = fc.ComposedEncoder(encoder(), fc.Combiner(DIM).to("meta")), Toy(tmp_path)
    calls: list[Callable[[], Any]] = [
        lambda: fc.Trainer(model, data, fc.InfoNCE(), CONFIG),
        lambda: fc.rank(model, data),
        lambda: fc.evaluate(model, data),
        lambda: model.query([data.path("0")], ["word 0"]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="encoder is on cpu and the fusion on meta: move both"):
            call()


class Plain:
    """An encoder that is no module, and so on no device."""

    def __init__(self) -> None:
        self._behind = encoder()
        self.load = self._behind.load

    def encode_image(self, pictures: Tensor) -> Tensor:
        return self._behind.encode_image(pictures)

    def encode_text(self, texts: list[str]) -> Tensor:
        return self._behind.encode_text(texts)


def test_features_of_an_encoder_on_no_device_are_looked_up_where_the_fusion_is(
    tmp_path: Path,
) -> None:
    model = fc.ComposedEncoder(Plain(), fc.Combiner(DIM).to("meta"))
    trainer = fc.Trainer(model, Toy(tmp_path), fc.InfoNCE(), CONFIG)
    tables = trainer.encoder.tables.values()  # type: ignore[attr-defined]
    assert [table.features.device.type for table in tables] == ["meta", "meta"]


# torch.compile itself looks at the gradient of each input.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_compiled_loss_gets_what_the_loss_accepts(tmp_path: Path) -> None:
    losses: list[Any] = [fc.InfoNCE(), torch.compile(fc.InfoNCE(), backend="eager")]
    models = [composed(0.0), composed(0.0)]
    for model, loss in zip(models, losses, strict=True):
        fc.fit(model, Toy(tmp_path), loss, replace(CONFIG, epochs=1))
    one, other = map(weights, models)
    for name in one:
        torch.testing.assert_close(one[name], other[name])


def test_a_loss_without_a_signature_gets_no_ids(tmp_path: Path) -> None:
    run = fc.fit(composed(), Toy(tmp_path), torch.dist, CONFIG)
    assert len(run.history) == CONFIG.epochs


def test_a_step_leaves_the_callers_random_stream_alone(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    trainer = fc.Trainer(composed(), data, fc.InfoNCE(), CONFIG)
    batch = next(batches(data, trainer.encoder, CONFIG, epoch=0))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer.step(batch)
    assert torch.equal(torch.rand(3), expected)


def test_training_does_not_depend_on_the_global_seed(tmp_path: Path) -> None:
    models = [composed(), composed()]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        fc.fit(model, Toy(tmp_path), fc.InfoNCE(), CONFIG)
    assert_equal_weights(*models)


def test_seeds_matter(tmp_path: Path) -> None:
    models = [composed(), composed()]
    for seed, model in enumerate(models):
        fc.fit(model, Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, seed=seed))
    assert changed(weights(models[0]), weights(models[1]))


def test_an_own_loop_equals_fit(tmp_path: Path) -> None:
    data, models = Toy(tmp_path), [composed(), composed()]
    fc.fit(models[0], data, fc.InfoNCE(), CONFIG)
    trainer = fc.Trainer(models[1], data, fc.InfoNCE(), CONFIG)
    for epoch in range(CONFIG.epochs):
        for batch in batches(data, trainer.encoder, CONFIG, epoch):
            trainer.step(batch)
    assert_equal_weights(*models)


def stepped(model: fc.ComposedEncoder, root: Path, **settings: Any) -> fc.Trainer:
    """A trainer that has made one step."""
    config = replace(CONFIG, **settings)
    trainer = fc.Trainer(model, Toy(root), fc.InfoNCE(), config)
    trainer.step(next(batches(trainer.train, trainer.encoder, config, 0)))
    return trainer


@pytest.mark.parametrize(("mode", "expected"), [("eval", False), ("train", True)])
def test_the_encoders_mode(tmp_path: Path, mode: str, expected: bool) -> None:
    live = encoder(dropout=0.5)
    stepped(fc.ComposedEncoder(live, fc.Sum()), tmp_path, train="text", encoder_mode=mode)
    assert live.text.dropout.training is expected  # type: ignore[attr-defined]


def test_a_frozen_tower_stays_in_eval_mode(tmp_path: Path) -> None:
    image = nn.Sequential(nn.Linear(4, DIM), nn.BatchNorm1d(DIM))
    live = fc.DualEncoder(image, WordText(), encoder().load)
    before = weights(image)
    stepped(fc.ComposedEncoder(live, fc.Sum()), tmp_path, train="text", encoder_mode="train")
    assert not image[1].training
    assert not changed(before, weights(image))


def test_a_frozen_fusion_has_no_dropout(tmp_path: Path) -> None:
    model = composed()
    stepped(model, tmp_path, train="text")
    assert not model.fusion.training  # type: ignore[attr-defined]


def test_modes_and_gradients_are_given_back(tmp_path: Path) -> None:
    model = composed()
    model.eval()
    frozen = model.encoder.image.weight.requires_grad_(False)  # type: ignore[attr-defined]
    fc.fit(model, Toy(tmp_path), fc.InfoNCE(), CONFIG)
    assert not any(module.training for module in model.modules())
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p is not frozen)

    def failing(query: Tensor, target: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fc.fit(model, Toy(tmp_path), failing, CONFIG)
    assert not any(module.training for module in model.modules())


def test_an_eval_call_between_steps_does_not_switch_dropout_off(tmp_path: Path) -> None:
    models = [composed(), composed()]
    for model, interrupt in zip(models, (False, True), strict=True):
        trainer = stepped(model, tmp_path)
        if interrupt:
            model.eval()
        trainer.step(next(batches(trainer.train, trainer.encoder, CONFIG, 0)))
    assert_equal_weights(*models)


def test_two_trainers_of_one_model_do_not_disturb_each_other(tmp_path: Path) -> None:
    model = composed()
    text, _ = (
        fc.Trainer(model, Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, train=train))
        for train in ("text", "fusion")
    )
    before = weights(model)
    text.run()
    assert {name.split(".")[1] for name in changed(before, weights(model))} == {"text"}


def test_bf16_is_close_to_fp32_and_not_the_same(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, lr=1e-3)
    losses = [
        fc.fit(
            composed(), Toy(tmp_path), fc.InfoNCE(), replace(config, precision=precision)
        ).metrics["loss"]
        for precision in ("fp32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_on_a_gpu_is_close_to_fp32_and_not_the_same(
    tmp_path: Path, cuda: torch.device, precision: str
) -> None:
    first = []
    for chosen in ("fp32", precision):
        model = composed().to(cuda)
        config = replace(CONFIG, epochs=5, lr=1e-3, precision=chosen)
        trainer = fc.Trainer(model, Toy(tmp_path), fc.InfoNCE(), config)
        before, losses = weights(model), []
        # Several steps: the scaler of fp16 leaves the first ones out, until its scale fits.
        for epoch in range(config.epochs):
            for batch in batches(trainer.train, trainer.encoder, config, epoch):
                losses.append(trainer.step(batch))
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses)
        assert {name.split(".")[0] for name in changed(before, weights(model))} == {"fusion"}
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
        first.append(losses[0].item())
    assert first[0] != first[1]
    assert first[0] == pytest.approx(first[1], rel=0.05)


def test_an_fp16_step_that_overflows_is_left_out_and_lowers_the_scale(
    tmp_path: Path, cuda: torch.device
) -> None:
    model = composed().to(cuda)
    before, config = weights(model), replace(CONFIG, precision="fp16")
    # Finite, but not once the scaler has multiplied it.
    trainer = fc.Trainer(model, Toy(tmp_path), lambda q, t: 1e35 * fc.InfoNCE()(q, t), config)
    scale = trainer._step.scaler.get_scale()
    trainer.step(next(batches(trainer.train, trainer.encoder, config, epoch=0)))
    assert not changed(before, weights(model))
    assert trainer._step.scaler.get_scale() == scale / 2


def test_a_gpu_trains_as_a_cpu_does(tmp_path: Path, cuda: torch.device) -> None:
    """The order of batches and the random texts do not depend on the device; dropout does."""
    data, models = Toy(tmp_path), [composed(dropout=0.0), composed(dropout=0.0).to(cuda)]
    # Adam would turn rounding noise in tiny gradients into other weights.
    config = replace(CONFIG, optimizer="sgd", train=("text", "fusion"))
    runs = [fc.fit(model, data, fc.InfoNCE(0.1), config) for model in models]
    for name, tensor in weights(models[0]).items():
        torch.testing.assert_close(weights(models[1])[name].cpu(), tensor, rtol=1e-3, atol=1e-4)
    for there, here in zip(runs[1].history, runs[0].history, strict=True):
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-3)


def test_a_step_leaves_the_streams_of_every_gpu_alone(tmp_path: Path, cuda: torch.device) -> None:
    data = Toy(tmp_path)
    last = torch.device("cuda", torch.cuda.device_count() - 1)  # the current one, if it is alone
    devices = {cuda, last}
    trainer = fc.Trainer(composed().to(last), data, fc.InfoNCE(), CONFIG)
    batch = next(batches(data, trainer.encoder, CONFIG, epoch=0))
    before = [torch.cuda.get_rng_state(device) for device in devices]
    trainer.step(batch)
    after = [torch.cuda.get_rng_state(device) for device in devices]
    assert all(map(torch.equal, before, after))


class Pair(nn.Module):
    """A fusion that ends in a linear layer, whose result autocast makes bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2 * DIM, DIM)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        fused: Tensor = self.layer(torch.cat((image, text), dim=-1))
        return fused


def test_the_loss_sees_float32_outside_autocast(tmp_path: Path) -> None:
    def loss(query: Tensor, target: Tensor) -> Tensor:
        assert query.dtype == target.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        scalar: Tensor = fc.InfoNCE()(query, target)
        return scalar

    for fusion in (fc.Combiner(DIM), Pair()):
        model = fc.ComposedEncoder(encoder(), fusion)
        fc.fit(model, Toy(tmp_path), loss, replace(CONFIG, precision="bf16"))


def test_fp16_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a GPU"):
        fc.Trainer(composed(), Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, precision="fp16"))


# Caching.


@pytest.mark.parametrize("make", [partial(composed, dropout=0.0), headed], ids=["plain", "heads"])
@pytest.mark.parametrize("train", ["fusion", "text", "image", ("text", "fusion")])
def test_cached_equals_computed(
    tmp_path: Path, train: str | tuple[str, ...], make: Callable[[], fc.ComposedEncoder]
) -> None:
    models = [make(), make()]
    data = Toy(tmp_path)
    for model, cache in zip(models, (True, False), strict=True):
        # Adam would turn rounding noise in tiny gradients into other weights.
        config = replace(CONFIG, train=train, cache=cache, optimizer="sgd")
        fc.fit(model, data, fc.InfoNCE(0.1), config, validation=data)
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
    train = fc.data.FashionIQ(tiny_fashioniq, "train")
    torch.manual_seed(0)
    live = fc.DualEncoder(nn.Linear(10, DIM), Letters(), load_name)
    config = replace(CONFIG, epochs=5, batch_size=6, lr=1e-3)
    texts = [t.texts[0] for epoch in range(5) for t in train.triplets(epoch)]
    # All four texts that the published training draws from a pair occur.
    assert len({(text.startswith("Is"), " and " in text) for text in texts}) == 4

    def losses(encoder: fc.protocols.Encoder, cache: bool) -> list[float]:
        torch.manual_seed(1)
        model = fc.ComposedEncoder(encoder, fc.Combiner(DIM, dropout=0.0))
        trainer = fc.Trainer(model, train, fc.InfoNCE(0.1), replace(config, cache=cache))
        epochs = (batches(train, trainer.encoder, trainer.config, epoch) for epoch in range(5))
        return [trainer.step(batch).item() for epoch in epochs for batch in epoch]

    expected = losses(live, cache=False)
    path = tmp_path / "features.safetensors"
    encoder = fc.CachedEncoder.build(live, train, path=path) if stored else live
    assert len(expected) == 20
    assert losses(encoder, cache=not stored) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("train", "learning"),
    [("fusion", set()), ("text", {"text", "heads"}), ("encoder.heads.*", {"heads"})],
)
def test_heads_learn_whenever_a_tower_learns(
    tmp_path: Path, train: str, learning: set[str]
) -> None:
    model = headed()
    before = weights(model.encoder)  # type: ignore[arg-type]
    fc.fit(model, Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, train=train))
    after = weights(model.encoder)  # type: ignore[arg-type]
    assert {name.split(".")[0] for name in changed(before, after)} == learning


def test_what_the_user_froze_stays_frozen(tmp_path: Path) -> None:
    text = nn.Sequential(WordText(), nn.Linear(DIM, DIM))
    text[0].requires_grad_(False)
    live = fc.DualEncoder(nn.Linear(4, DIM), text, encoder().load)
    model = fc.ComposedEncoder(live, fc.Sum())
    before = weights(live)
    fc.fit(model, Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, train="text"))
    assert changed(before, weights(live)) == {"text.1.weight", "text.1.bias"}


@pytest.mark.parametrize(
    ("train", "cached"),
    [("fusion", {"image", "text"}), ("text", {"image"}), ("image", {"text"}), ("both", set())],
)
def test_what_does_not_learn_is_looked_up(tmp_path: Path, train: str, cached: set[str]) -> None:
    model = composed()
    trainer = fc.Trainer(model, Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, train=train))
    assert set(getattr(trainer.encoder, "lookup", {})) == cached
    off = fc.Trainer(model, Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, train=train, cache=False))
    assert off.encoder is model.encoder


def test_each_picture_is_encoded_once(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        rows = 0

        def forward(self, pictures: Tensor) -> Tensor:
            self.rows += len(pictures)
            return super().forward(pictures)

    image, plain = Counting(4, DIM), encoder()
    live = fc.DualEncoder(image=image, text=plain.text, load=plain.load)
    data = Toy(tmp_path)
    fc.fit(
        fc.ComposedEncoder(live, fc.Sum()),
        data,
        fc.InfoNCE(),
        replace(CONFIG, train="text"),
        validation=data,
    )
    assert image.rows == len(data.image_ids)


def test_a_layer_of_both_towers_is_never_stale(tmp_path: Path) -> None:
    """What learns for one side serves the other too, so neither may be cached."""
    evaluations = []
    for cache in (True, False):
        torch.manual_seed(0)
        layer = nn.Linear(DIM, DIM)
        image, text = nn.Sequential(nn.Linear(4, DIM), layer), nn.Sequential(WordText(), layer)
        live = fc.DualEncoder(image, text, encoder().load)
        model, data = fc.ComposedEncoder(live, fc.Sum()), Toy(tmp_path)
        config = replace(CONFIG, train="text", cache=cache, optimizer="sgd", epochs=1)
        trainer = fc.Trainer(model, data, fc.InfoNCE(), config, data)
        assert "image" not in getattr(trainer.encoder, "lookup", {})
        before = layer.weight.detach().clone()
        evaluations.append(dict(trainer.run().metrics))
        assert not torch.equal(layer.weight, before)
    assert evaluations[0] == evaluations[1]


def test_the_run_holds_the_users_own_encoder(tmp_path: Path) -> None:
    model = composed()
    live = model.encoder
    run = fc.fit(model, Toy(tmp_path), fc.InfoNCE(), CONFIG)
    assert run.model is model
    assert run.model.encoder is live


# Validation.


def test_the_best_weights_come_back(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    for workdir in (None, tmp_path / "run"):
        config = replace(CONFIG, epochs=8, lr=0.1, metric="recall@5")
        run = fc.fit(composed(), data, fc.InfoNCE(), config, data, workdir)
        scores = [record["recall@5"] for record in run.history]
        assert len(set(scores)) > 1
        assert run.metrics["recall@5"] == max(scores)
        assert run.metrics["epoch"] == 1 + scores.index(max(scores))
        again = fc.evaluate(run.model, data)
        assert again["recall@5"] == max(scores)


def cirr_world(root: Path) -> tuple[fc.ComposedEncoder, fc.data.CIRR, fc.data.CIRR]:
    """A Combiner on random features of both splits."""
    train, val = fc.data.CIRR(root, "train"), fc.data.CIRR(root, "val")
    torch.manual_seed(0)
    ids = [*train.image_ids, *val.image_ids]
    texts = list(dict.fromkeys([*train.texts(), *val.texts()]))
    cached = fc.CachedEncoder.from_arrays(
        ids, torch.randn(len(ids), DIM), texts, torch.randn(len(texts), DIM)
    )
    return fc.ComposedEncoder(cached, fc.Combiner(DIM)), train, val


CIRR_METRICS = [
    *(f"recall@{k}" for k in (1, 5, 10, 50)),
    *(f"recall_subset@{k}" for k in (1, 2, 3)),
    "mean(recall@5, recall_subset@1)",
    "arithmetic_mean",
    "harmonic_mean",
    "geometric_mean",
]


@pytest.mark.parametrize("metric", [None, *CIRR_METRICS])
def test_each_metric_of_cirr_picks_its_own_best_weights(
    tiny_cirr: Path, metric: str | None
) -> None:
    model, train, val = cirr_world(tiny_cirr)
    config = replace(CONFIG, epochs=6, lr=0.05, metric=metric)
    run = fc.fit(model, train, fc.InfoNCE(), config, val)
    scores = [record[metric or "mean(recall@5, recall_subset@1)"] for record in run.history]
    assert len(set(scores)) > 1
    assert run.metrics["epoch"] == 1 + scores.index(max(scores))


def test_an_unknown_metric_of_cirr_lists_the_valid_ones(tiny_cirr: Path) -> None:
    model, train, val = cirr_world(tiny_cirr)
    for unknown in ("mean", "recall_subset@5"):
        with pytest.raises(ValueError) as caught:
            fc.Trainer(model, train, fc.InfoNCE(), replace(CONFIG, metric=unknown), val)
        message = f"unknown metric {unknown!r}; valid: {', '.join(CIRR_METRICS)}"
        assert str(caught.value) == message


def test_without_validation_the_last_weights_stay(tmp_path: Path) -> None:
    run = fc.fit(composed(), Toy(tmp_path), fc.InfoNCE(), CONFIG)
    assert run.metrics == run.history[-1]
    assert set(run.metrics) == {"epoch", "loss", "gradient_norm", "lr"}


def test_the_last_epoch_is_always_evaluated(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    run = fc.fit(composed(), data, fc.InfoNCE(), replace(CONFIG, epochs=5, eval_every=2), data)
    assert [r["epoch"] for r in run.history if "mean" in r] == [2, 4, 5]


def test_an_unknown_metric_lists_the_valid_ones(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    with pytest.raises(ValueError, match=r"recall@7.*valid: recall@1, recall@5, mean"):
        fc.Trainer(composed(), data, fc.InfoNCE(), replace(CONFIG, metric="recall@7"), data)


def test_a_metric_needs_validation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="validation"):
        fc.Trainer(composed(), Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, metric="mean"))


def test_word_text_is_random_in_train_mode() -> None:
    """The toy must be able to show a forgotten random state."""
    text = WordText(0.5).train()
    assert not torch.equal(text(["word 1"]), text(["word 1"]))


def test_what_is_printed_fits_a_line(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    run = fc.fit(composed(), data, fc.InfoNCE(), CONFIG, data)
    assert repr(run).startswith("Run(epoch ")
    assert repr(run).endswith("of 3 epochs; no workdir)")
    batch = next(batches(data, encoder(), CONFIG, epoch=0))
    assert repr(batch) == "Batch(4 triplets, reference [4, 4], 4 texts)"


def test_many_short_epochs_are_one_phase_in_a_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither silent nor a line for every epoch, also where it goes on in the middle of one."""
    clock = itertools.count()
    monkeypatch.setattr("fusecomp.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    trainer = fc.Trainer(composed(), Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, epochs=30))
    trainer.epoch, trainer.batch = 3, 2
    trainer.run()
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "training fusion: 41/90 steps, 1/s, 49 s left\n"
        "training fusion: 71/90 steps, 1/s, 19 s left\n"
        "training fusion: 90/90 steps, 0.99/s, 80 s\n"
    )


def test_a_loss_class_in_place_of_an_instance_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="loss is the class InfoNCE: pass an instance"):
        fc.Trainer(composed(), Toy(tmp_path), fc.InfoNCE, CONFIG)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [fc.Trainer, fc.fit])
@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((1, 0, 2, 3), "model must be a ComposedEncoder, got Toy"),
        ((0, 2, 1, 3), "train must be a Dataset, got InfoNCE"),
        ((0, 1, 3, 2), "loss must be callable, got StageConfig"),
        ((0, 1, 2, 1), "config must be a StageConfig, got Toy"),
        ((0, 1, 2, 3, 4), "validation must be a Dataset, got str"),
    ],
)
def test_swapped_arguments_are_named_with_their_order(
    tmp_path: Path, call: Callable[..., Any], order: tuple[int, ...], message: str
) -> None:
    given = [composed(), Toy(tmp_path), fc.InfoNCE(), CONFIG, "a workdir"]
    with pytest.raises(TypeError, match=f"{message}; the order is model, train, loss, config"):
        call(*(given[position] for position in order))

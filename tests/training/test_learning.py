"""What learns: what is named, the heads of it and the loss, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy import CONFIG, DIM, Toy, changed, composed, encoder, headed, stepped, weights

import fusecomp as fc


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
    fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, trainable=train)).fit(Toy(tmp_path))
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
        fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, trainable=train))


class Scaled(nn.Module):
    """A loss with a learnable scale."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, query: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.scale * query @ target.T, torch.arange(len(query)))


def test_the_losses_own_parameters_learn(tmp_path: Path) -> None:
    loss = Scaled()
    fc.Trainer(composed(), loss=loss, config=CONFIG).fit(Toy(tmp_path))
    assert loss.scale.item() != 3.0


@pytest.mark.parametrize(
    ("train", "learning"),
    [("fusion", set()), ("text", {"text", "heads"}), ("encoder.heads.*", {"heads"})],
)
def test_heads_learn_whenever_a_tower_learns(
    tmp_path: Path, train: str, learning: set[str]
) -> None:
    model = headed()
    before = weights(model.get_submodule("encoder"))
    fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, trainable=train)).fit(Toy(tmp_path))
    after = weights(model.get_submodule("encoder"))
    assert {name.split(".")[0] for name in changed(before, after)} == learning


def moved_by(model: fc.ComposedEncoder, root: Path, train: str | tuple[str, ...]) -> set[str]:
    before = weights(model)
    fc.Trainer(model, loss=fc.InfoNCE(0.1), config=replace(CONFIG, trainable=train)).fit(Toy(root))
    return changed(before, weights(model))


TEXT, IMAGE = {"encoder.text.embedding.weight"}, {"encoder.image.weight", "encoder.image.bias"}


@pytest.mark.parametrize(
    ("frozen", "train", "expected"),
    [
        (IMAGE, "both", TEXT),
        (TEXT, "both", IMAGE),
        (IMAGE, ("image", "text"), TEXT),
        (IMAGE, "encoder.*", TEXT),
        ({"encoder.image.bias"}, "image", {"encoder.image.weight"}),
        ({"encoder.image.bias"}, "*.image.*", {"encoder.image.weight"}),
    ],
)
def test_what_the_user_froze_stays_frozen(
    tmp_path: Path, frozen: set[str], train: str | tuple[str, ...], expected: set[str]
) -> None:
    model = composed()
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    assert moved_by(model, tmp_path, train) == expected
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == frozen


@pytest.mark.parametrize("train", ["image", "encoder.image.*", ("image", "encoder.image.bias")])
def test_nothing_left_to_learn_is_an_error(tmp_path: Path, train: str | tuple[str, ...]) -> None:
    model = composed()
    model.get_submodule("encoder.image").requires_grad_(False)
    message = (
        r"names 2 parameters, the first: 'encoder.image.weight', and you have frozen all of them.*"
        r"requires_grad_\(True\)"
    )
    with pytest.raises(ValueError, match=message):
        fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, trainable=train))
    model.get_submodule("encoder.image").requires_grad_(True)
    assert moved_by(model, tmp_path, train) == IMAGE


def test_a_head_on_a_frozen_tower_learns(tmp_path: Path) -> None:
    model = headed()
    model.get_submodule("encoder.text").requires_grad_(False)
    assert moved_by(model, tmp_path, "text") == {
        "encoder.heads.image.weight",
        "encoder.heads.text.weight",
    }


def test_what_a_trainer_froze_is_not_frozen_by_the_user(tmp_path: Path) -> None:
    model = composed()
    model.get_parameter("encoder.image.bias").requires_grad_(False)
    # A loop of one's own leaves the model in the state of its stage.
    for train in ("text", "fusion", "image"):
        stepped(model, tmp_path, trainable=train)
    assert not model.get_parameter("encoder.text.embedding.weight").requires_grad
    assert moved_by(model, tmp_path, "both") == TEXT | {"encoder.image.weight"}
    # The user may freeze and unfreeze in between.
    model.get_submodule("encoder.image").requires_grad_(True)
    model.get_submodule("encoder.text").requires_grad_(True)
    assert moved_by(model, tmp_path, "both") == TEXT | IMAGE
    model.get_submodule("encoder.text").requires_grad_(False)
    assert moved_by(model, tmp_path, "both") == IMAGE


def test_a_trainer_made_within_a_run_sees_what_the_user_froze(tmp_path: Path) -> None:
    model = composed()
    model.get_submodule("encoder.image").requires_grad_(False)
    learning: list[set[str]] = []

    class Another:
        def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
            config = replace(CONFIG, trainable=("both", "fusion"))
            other = fc.Trainer(model, loss=fc.InfoNCE(), config=config)
            learning.append(set(other._stage.learning))

    fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG, callbacks=[Another()]).fit(Toy(tmp_path))
    expected = {name for name, _ in model.named_parameters()} - IMAGE
    assert all(names == expected for names in learning)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("part", "train", "named"),
    [
        ("encoder.text", "text", "encoder.text.embedding.weight"),
        ("encoder.image", ("fusion", "both"), "encoder.image.weight"),
        ("fusion", "fusion", "fusion.text_projection_layer.weight"),
        ("loss", "fusion", "loss.scale"),
    ],
)
def test_half_precision_does_not_learn(
    tmp_path: Path, part: str, train: str | tuple[str, ...], named: str, dtype: torch.dtype
) -> None:
    model, loss = composed(), Scaled()
    (loss if part == "loss" else model.get_submodule(part)).to(dtype)
    message = rf"^{named} is {dtype} and would learn.*float32.*precision='bf16'"
    with pytest.raises(ValueError, match=message):
        fc.Trainer(model, loss=loss, config=replace(CONFIG, trainable=train))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_frozen_encoder_may_be_in_any_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    model = composed()
    model.get_submodule("encoder.text").to(dtype)
    loss = Scaled().half().requires_grad_(False)
    assert {name.split(".")[0] for name in moved_by(model, tmp_path, "fusion")} == {"fusion"}
    fc.Trainer(model, loss=loss, config=CONFIG).fit(Toy(tmp_path))


def test_a_published_combiner_in_half_precision_is_refused_until_it_is_widened(
    tmp_path: Path,
) -> None:
    combiner = fc.Combiner.from_published(fc.Combiner(DIM).half().state_dict())
    model = fc.ComposedEncoder(encoder(), combiner)
    with pytest.raises(ValueError, match=r"^fusion\.\S+ is torch\.float16 and would learn"):
        fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG)
    model.float()
    assert moved_by(model, tmp_path, "fusion")


def test_weights_of_inference_mode_may_be_frozen_but_not_learn(tmp_path: Path) -> None:
    live = encoder()
    with torch.inference_mode():
        live.image = nn.Linear(4, DIM)
    model = fc.ComposedEncoder(live, fc.Combiner(DIM))
    fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, cache=False)).fit(Toy(tmp_path))
    with torch.inference_mode():
        live.image = nn.Linear(4, DIM)
    with pytest.raises(
        ValueError, match=r"encoder\.image\.weight was made in torch\.inference_mode"
    ):
        fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, trainable="image"))

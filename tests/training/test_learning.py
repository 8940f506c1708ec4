"""What learns: what is named, the heads of it and the loss, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy import CONFIG, DIM, Toy, WordText, changed, composed, encoder, headed, weights

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

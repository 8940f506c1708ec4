"""Models that are compiled, checkpoint their gradients, or carry low-rank adapters of peft."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Numbered, make_open_clip, make_tokenizer, make_transformers
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint
from toy import Toy

import fusecomp as fc
from fusecomp.encoders import DualEncoder, OpenClipEncoder, TransformersEncoder

# Dynamo itself looks for the gradient of each input.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.heavy,
]
TEXTS = ["is red", "is blue and sleeveless", "red", "blue", "is sleeveless"]
LIBRARIES = ("open_clip", "clip", "siglip")
KINDS = (*LIBRARIES, "dual")
# Of open_clip, and of transformers before and since 5.24.
SWITCHES = (
    "set_grad_checkpointing",
    "activation_checkpointing_enable",
    "gradient_checkpointing_enable",
)
UNUSED = ("logit_scale", "logit_bias")
Wrap = Callable[[nn.Module], Any]
Make = Callable[..., Any]


class Worded(Toy):
    """The toy's rows with texts that the tiny tokenizers know."""

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[fc.Triplet]:
        rows = enumerate(super().triplets())
        return [replace(row, texts=(TEXTS[number % len(TEXTS)],)) for number, row in rows]

    def texts(self) -> list[str]:
        return TEXTS


class Tower(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 8), nn.Linear(8, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.second(self.first(inputs.flatten(1)).tanh())
        return features


class Letters(nn.Module):
    """A text encoder of another width than the images'."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Tower(24, 7)

    def forward(self, texts: list[str]) -> Tensor:
        codes = [[ord(letter) / 100 for letter in text.ljust(24)] for text in texts]
        features: Tensor = self.layers(torch.tensor(codes))
        return features


@pytest.fixture(autouse=True)
def forget_what_was_compiled() -> None:
    torch.compiler.reset()


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Make:
    """Build an encoder of a kind around models that ``wrap`` has had in hand."""

    def build(kind: str, wrap: Wrap = lambda model: model) -> Any:
        if kind == "dual":
            torch.manual_seed(0)
            sides = {"image": wrap(Tower(3 * 16 * 16, 9)), "text": wrap(Letters())}
            return DualEncoder(**sides, load_image=Numbered(), image_dim=9, text_dim=7, dim=6)
        library = request.getfixturevalue("open_clip" if kind == "open_clip" else "transformers")
        encoder: Any
        if kind == "open_clip":
            encoder = OpenClipEncoder(wrap(make_open_clip()), library.get_tokenizer("RN50"))
        else:
            model = wrap(make_transformers(library, kind))
            encoder = TransformersEncoder(model, make_tokenizer(library))
        encoder.load_image = Numbered()
        return encoder

    return build


def parts(model: nn.Module) -> Iterator[nn.Module]:
    """What does the work on each side, and is called as a module."""
    names = ("visual", "transformer", "vision_model", "text_model", "layers")
    found = [getattr(model, name) for name in names if hasattr(model, name)]
    yield from found or [model]


# Ways to wrap


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="aot_eager")


def compiled_in_parts(model: nn.Module) -> Any:
    for part in parts(model):
        part.compile(backend="aot_eager")
    return model


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Any) -> Any:
        return checkpoint(self.inner, inputs, use_reentrant=False)


def checkpointed(model: Any) -> Any:
    for switch in SWITCHES:
        if hasattr(model, switch):
            getattr(model, switch)()
            return model
    return Checkpointed(model)


WRAPS = [compiled, compiled_in_parts, checkpointed]


def own_name(name: str) -> str:
    return name.replace("_orig_mod.", "").replace(".inner.", ".")


def features_and_gradients(encoder: Any) -> dict[str, Tensor]:
    # Transformers checkpoints in training mode only; nothing here is random in it.
    encoder.train()
    images = torch.stack([Numbered()(Path(f"{number}.png")) for number in range(5)])
    image, text = encoder.encode_image(images), encoder.encode_text(TEXTS)
    (image.square().sum() + (text**3).sum()).backward()
    grads = {own_name(n): p.grad for n, p in encoder.named_parameters() if p.grad is not None}
    return {"image": image.detach(), "text": text.detach(), **grads}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("kind", KINDS)
def test_features_and_gradients_are_those_of_the_bare_model(
    make: Make, kind: str, wrap: Wrap
) -> None:
    expected, actual = (features_and_gradients(e) for e in (make(kind), make(kind, wrap)))
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def learning(trainer: fc.Trainer) -> set[str]:
    """The names of the encoder's parameters that the optimiser has."""
    known = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    encoder: Any = trainer.model.encoder
    return {name for name, parameter in encoder.named_parameters() if id(parameter) in known}


def stage1(train: str) -> fc.StageConfig:
    return fc.StageConfig(epochs=4, batch_size=5, lr=1e-2, trainable=train, encoder_mode="train")


@pytest.mark.parametrize("train", ["text", "both"])
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("kind", KINDS)
def test_stage_1_trains_as_on_the_bare_model(
    make: Make, tmp_path: Path, kind: str, wrap: Wrap, train: str
) -> None:
    histories = []
    for encoder in (make(kind), make(kind, wrap)):
        before = {name: tensor.clone() for name, tensor in encoder.named_parameters()}
        trainer = fc.Trainer(
            fc.ComposedEncoder(encoder, fc.Sum()), loss=fc.InfoNCE(0.1), config=stage1(train)
        )
        histories.append([record["loss"] for record in trainer.fit(Worded(tmp_path)).history])
        moved = {n for n, p in encoder.named_parameters() if not torch.equal(p, before[n])}
        assert moved
        assert not {name.split(".")[-1] for name in moved}.intersection(UNUSED)
        assert not any(name.split(".")[-1] in UNUSED for name in learning(trainer))
    assert histories[1] == pytest.approx(histories[0], rel=1e-4)
    assert histories[1][-1] < histories[1][0]


@pytest.mark.parametrize("train", ["text", "image", "both", "pattern"])
@pytest.mark.parametrize("kind", KINDS)
def test_sides_and_patterns_name_what_learns(
    make: Make, tmp_path: Path, kind: str, train: str
) -> None:
    encoder = make(kind)
    names = {name for name, _ in encoder.named_parameters()}
    pattern = "image.first.*" if kind == "dual" else "model.*ln_final.*"
    if kind in ("clip", "siglip"):
        pattern = "model.text_model.final*"
    sides = {"text": ("text",), "image": ("image",), "both": ("text", "image"), "pattern": ()}
    expected = {name for side in sides[train] for name in encoder.towers[side]}
    expected |= {n for n in names if train == "pattern" and fnmatch(n, pattern)}
    expected |= {name for name in names if name.startswith("heads.")}
    config = stage1(f"encoder.{pattern}" if train == "pattern" else train)
    model = fc.ComposedEncoder(encoder, fc.Sum())
    assert learning(fc.Trainer(model, loss=fc.InfoNCE(), config=config)) == expected
    assert len(expected) > 1
    if train == "both":
        assert {n.split(".")[-1] for n in names - expected} <= set(UNUSED)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_compiled_is_what_runs(make: Make, kind: str) -> None:
    counter = CompileCounterWithBackend("aot_eager")

    def wrap(model: nn.Module) -> nn.Module:
        for part in parts(model):
            part.compile(backend=counter)
        return model

    encoder = make(kind, wrap)
    encoder.encode_text(TEXTS)
    texts = counter.frame_count
    encoder.encode_image(torch.randn(2, 3, 16, 16))
    assert 0 < texts < counter.frame_count


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_computes_again_in_the_backward_pass(make: Make, kind: str) -> None:
    calls = []
    for wrap in (lambda model: model, checkpointed):
        encoder = make(kind, wrap)
        count = [0]

        def note(*_: object, count: list[int] = count) -> None:
            count[0] += 1

        for module in encoder.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(note)
        features_and_gradients(encoder)
        calls.append(count[0])
    assert calls[0] < calls[1]


@pytest.fixture
def peft(torchvision: None) -> Any:
    return pytest.importorskip("peft", reason="needs peft")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own use of transformers
@pytest.mark.parametrize("kind", LIBRARIES)
def test_low_rank_adapters_learn_alone(make: Make, peft: Any, tmp_path: Path, kind: str) -> None:
    targets = ["c_fc", "c_proj"] if kind == "open_clip" else ["q_proj", "v_proj"]

    def wrap(model: nn.Module) -> Any:
        return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets))

    encoder = make(kind, wrap)
    adapters = {n for n, p in encoder.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in adapters)
    for side in ("text", "image"):
        assert adapters.intersection(encoder.towers[side])
    # Untrained, they change nothing.
    bare = make(kind)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(encoder.encode_image(images), bare.encode_image(images))
    torch.testing.assert_close(encoder.encode_text(TEXTS), bare.encode_text(TEXTS))
    before = {name: tensor.clone() for name, tensor in encoder.named_parameters()}
    model, data = fc.ComposedEncoder(encoder, fc.Sum()), Worded(tmp_path)
    history = fc.Trainer(model, loss=fc.InfoNCE(0.1), config=stage1("text")).fit(data).history
    assert history[-1]["loss"] < history[0]["loss"]
    moved = {n for n, p in encoder.named_parameters() if not torch.equal(p, before[n])}
    assert moved == adapters.intersection(encoder.towers["text"])

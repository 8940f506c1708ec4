"""Each fusion equals its authors' module: values, gradients, BatchNorm's statistics, losses."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden import TOLERANCES, Golden
from torch import Tensor, nn

from fusecomp._core.similarity import normalize
from fusecomp.fusions import (
    ARTEMIS,
    CIRPLANT,
    MUTAN,
    RTIC,
    TIRG,
    Concat,
    ConvexGate,
    Direction,
    Slerp,
    _concat,
    _mutan,
    _rtic,
    _tirg,
)
from fusecomp.losses import InfoNCE, LearnableTemperature
from fusecomp.types import Tokens

Build = Callable[[dict[str, Tensor]], nn.Module]
# By golden file: how a fusion without dropout is built of published weights.
BUILD: dict[str, Build] = {
    "tirg": TIRG.from_published,
    "concat": lambda weights: Concat.from_published(weights, dropout=0.0),
    "rtic": RTIC.from_published,
    "mutan": MUTAN.from_published,
    "dqu": lambda weights: ConvexGate.from_published(weights, dropout=0.0),
}
# The file of a fusion that gives its queries unit length, where the published module does not, and
# the name of the function in it.
UNIT_LENGTH: dict[str, tuple[Any, str]] = {
    "tirg": (_tirg, "normalize"),
    "concat": (_concat, "normalize"),
    "rtic": (_rtic, "normalize"),
    "mutan": (_mutan, "unit"),
}
both_dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


def without_unit_length(system: str, patch: pytest.MonkeyPatch) -> None:
    file, name = UNIT_LENGTH[system]
    patch.setattr(file, name, lambda features: features)


def check_step(golden: Golden, build: Build, mode: str) -> nn.Module:
    """Compare the queries and all gradients of one forward and backward pass."""
    fusion = build(golden.below("w/")).train(mode == "train")
    image, text = golden.inputs("image", "text")
    query = fusion(image, text)
    query.backward(golden["g/out"])
    golden.check(query, f"{mode}/out")
    golden.check(image.grad, f"{mode}/grad_in/image")
    golden.check(text.grad, f"{mode}/grad_in/text")
    check_weights(golden, fusion, build, mode)
    return fusion


def check_weights(golden: Golden, fusion: nn.Module, build: Build, mode: str) -> None:
    # Read as weights, the published gradients get our names.
    expected = build(golden.below("w/") | golden.below(f"{mode}/grad_w/")).named_parameters()
    for (name, weight), (_, gradient) in zip(fusion.named_parameters(), expected, strict=True):
        golden.assert_close(weight.grad, gradient, name)


@pytest.mark.parametrize("system", UNIT_LENGTH)
@both_dtypes
def test_evaluation_equals_the_published_numbers(
    system: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_unit_length(system, monkeypatch)
    check_step(Golden(system, dtype), BUILD[system], "eval")


@pytest.mark.parametrize("system", ["tirg", "concat", "rtic"])
@both_dtypes
def test_a_training_step_equals_the_published_numbers(
    system: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_unit_length(system, monkeypatch)
    golden, build = Golden(system, dtype), BUILD[system]
    fusion = check_step(golden, build, "train")
    expected = build(golden.below("w/") | golden.below("train/buffer_after/")).named_buffers()
    for (name, buffer), (_, after) in zip(fusion.named_buffers(), expected, strict=True):
        golden.assert_close(buffer, after, name)


@pytest.mark.parametrize("system", UNIT_LENGTH)
def test_ours_has_the_published_direction_at_unit_length(system: str) -> None:
    golden = Golden(system)
    query = BUILD[system](golden.below("w/")).eval()(*golden.inputs("image", "text"))
    golden.assert_close(query, normalize(golden["eval/out"]), "query")


def along_the_sphere(gradient: Tensor, unit: Tensor) -> Tensor:
    """What is left of a gradient where the rows are given unit length first."""
    return gradient - (gradient * unit).sum(dim=1, keepdim=True) * unit


def infonce(scale: float, dtype: torch.dtype) -> InfoNCE:
    loss = InfoNCE(LearnableTemperature(start=1 / scale)).to(dtype)
    for log_scale in loss.parameters():  # made in float32
        nn.init.constant_(log_scale, math.log(scale))
    return loss


@both_dtypes
def test_the_convex_gate_and_its_loss_equal_those_of_dqu_cir(dtype: torch.dtype) -> None:
    golden, build = Golden("dqu", dtype), BUILD["dqu"]
    fusion, scale = build(golden.below("w/")).eval(), golden["w/loss_weight"].item()
    loss = infonce(scale, dtype)
    image, text, target = golden.inputs("image", "text", "target")
    query = fusion(image, text)
    value = loss(query, target)
    ((query * golden["g/out"]).sum() + value * golden["g/loss"]).backward()
    golden.check(query, "eval/out")
    golden.check(value, "eval/loss")
    for name, tensor in (("image", image), ("text", text), ("target", target)):
        golden.check(tensor.grad, f"eval/grad_in/{name}")
    check_weights(golden, fusion, build, "eval")
    (log_scale,) = loss.parameters()
    assert log_scale.grad is not None
    golden.check(log_scale.grad[None] / scale, "eval/grad_w/loss_weight")


@both_dtypes
def test_the_loss_of_tirg_is_infonce_with_a_learnable_temperature(dtype: torch.dtype) -> None:
    golden = Golden("tirg", dtype)
    scale = golden["loss/w/normalization_layer.norm_s"].item()
    loss = infonce(scale**2, dtype)
    query, target = (golden[f"loss/in/{side}"].requires_grad_() for side in ("query", "target"))
    scaled, value = scale * normalize(query), loss(query, target)
    ((scaled * golden["loss/g/query"]).sum() + value * golden["loss/g/loss"]).backward()
    golden.check(value, "loss/eval/loss")
    golden.check(query.grad, "loss/eval/grad_in/query")
    golden.check(target.grad, "loss/eval/grad_in/target")


def test_the_tirg_of_artemis_is_ours() -> None:
    """It has two coefficients, as ours, and unit length."""
    tirg = Golden("artemis").below("tirg/")
    fusion = TIRG.from_published({n[2:]: t for n, t in tirg.items() if n.startswith("w/")}).eval()
    image, text = (tirg[f"in/{side}"].requires_grad_() for side in ("image", "text"))
    query = fusion(image, text)
    query.backward(tirg["g/out"])
    torch.testing.assert_close(query.detach(), tirg["eval/out"], rtol=1e-9, atol=1e-10)
    for side, tensor in (("image", image), ("text", text)):
        expected = tirg[f"eval/grad_in/{side}"]
        torch.testing.assert_close(tensor.grad, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 0.8, 1.0])
@both_dtypes
def test_slerp_equals_the_published_numbers(weight: float, dtype: torch.dtype) -> None:
    golden = Golden("slerp", dtype)
    image, text = golden.inputs("image", "text")
    query = Slerp(weight)(image, text)
    query.backward(golden["g/out"])
    # Row 0 is so close that the published function interpolates linearly; row 1 nearly is.
    golden.check(query, f"t{weight}/out", slice(1, None))
    torch.testing.assert_close(query[0].detach(), golden[f"t{weight}/out"][0], rtol=0, atol=1e-6)
    for side, tensor in (("image", image), ("text", text)):
        assert tensor.grad is not None
        # The published function takes unit rows as they are; ours makes them so first, which leaves
        # of a gradient what does not change the length.
        gradient, row = golden[f"t{weight}/grad_in/{side}"], tensor.detach()
        expected = along_the_sphere(gradient, row)
        near = 1 if dtype == torch.float64 else 2
        golden.assert_close(tensor.grad[near:], expected[near:], side)
        difference = float((tensor.grad - expected)[:near].abs().max())
        assert difference < (1e-5 if dtype == torch.float64 else 5e-2)


@pytest.mark.parametrize("setting", range(5))
@both_dtypes
def test_direction_equals_the_published_formula(setting: int, dtype: torch.dtype) -> None:
    golden = Golden("pdv", dtype)
    dials = golden["settings_alpha_image_alpha_text_beta"][setting].tolist()
    fusion = Direction(None, *dials)
    inputs = golden.inputs("image", "composed_text", "reference_text")
    query = fusion(*inputs)
    query.backward(golden["g/out"])
    golden.check(query, f"{setting}/out")
    for name, tensor in zip(("image", "composed_text", "reference_text"), inputs, strict=True):
        gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        golden.check(gradient, f"{setting}/grad_in/{name}")


# By the name of a variant in the golden file.
VARIANTS = {"ARTEMIS": ["EM", "IS"], "EM-only": ["EM"], "IS-only": ["IS"]}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def build_artemis(variant: str) -> Callable[[dict[str, Tensor]], ARTEMIS]:
    return lambda weights: ARTEMIS.from_published(weights, VARIANTS[variant])


def check_artemis(
    golden: Golden, variant: str, experiment: str, fusion: ARTEMIS, inputs: list[Tensor]
) -> None:
    """Compare the gradients of inputs and weights with those of an experiment."""
    check_weights(golden, fusion, build_artemis(variant), f"{variant}/{experiment}")
    for name, tensor in zip(("reference", "text", "target"), inputs, strict=True):
        # The published module takes unit rows as they are.
        expected = golden[f"{variant}/{experiment}/grad_in/{name}"]
        if name == "text":
            expected = along_the_sphere(expected, tensor.detach())
        gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        golden.assert_close(gradient, expected, name)


@every_variant
@both_dtypes
def test_scores_of_artemis_equal_the_published_numbers(variant: str, dtype: torch.dtype) -> None:
    golden = Golden("artemis", dtype)
    fusion = build_artemis(variant)(golden.below("w/"))
    inputs = golden.inputs("reference", "text", "target")
    query = fusion(*inputs[:2])
    scores = fusion.similarity(query, inputs[2])
    scores.backward(golden["g/broadcast"])
    golden.check(scores, f"{variant}/broadcast")
    golden.check(scores.diag(), f"{variant}/pair")
    check_artemis(golden, variant, "broadcast", fusion, inputs)
    gallery = golden["in/gallery"]
    for scale, name in ((1, "gallery"), (7, "gallery_scaled_targets")):
        golden.check(fusion.similarity(query, scale * gallery), f"{variant}/{name}")


@every_variant
@both_dtypes
def test_the_loss_of_artemis_equals_the_published_numbers(variant: str, dtype: torch.dtype) -> None:
    """Cross-entropy of the scores, over a temperature that learns."""
    golden = Golden("artemis", dtype)
    fusion = build_artemis(variant)(golden.below("w/"))
    inputs = golden.inputs("reference", "text", "target")
    temperature = LearnableTemperature(start=math.exp(-golden["w/temperature"].item())).to(dtype)
    nn.init.constant_(temperature.log_scale, golden["w/temperature"].item())  # made in float32
    scores = fusion.similarity(fusion(*inputs[:2]), inputs[2])
    rows = torch.arange(len(scores))
    loss = nn.functional.cross_entropy(temperature.scale() * scores, rows)
    loss.backward()
    golden.check(loss, f"{variant}/loss")
    check_artemis(golden, variant, "loss", fusion, inputs)
    assert temperature.log_scale.grad is not None
    golden.check(temperature.log_scale.grad[None], f"{variant}/loss/grad_w/temperature")
    plain = nn.functional.cross_entropy(scores, rows)
    golden.check(plain, f"{variant}/loss_without_temperature")


BERT = "imageBert.bert."


def build_cirplant(weights: dict[str, Tensor]) -> CIRPLANT:
    return CIRPLANT.from_published(weights, heads=3)


class Cirplant:
    """What the published model has beside the fusion: word vectors and the image projection."""

    def __init__(self, dtype: torch.dtype, image_norm: bool = False) -> None:
        self.golden = golden = Golden("cirplant", dtype)
        self.fusion = build_cirplant(golden.below("w/")).eval()
        self.length = golden["w/normalization_layer.norm_s"].requires_grad_()
        self.encoder = {
            name: golden[f"w/{BERT}{name}"].requires_grad_()
            for name in (
                *("img_embedding.weight", "img_embedding.bias"),
                "embeddings.word_embeddings.weight",
                "embeddings.token_type_embeddings.weight",
            )
        }
        self.norm = golden.below(f"layernorm/w/{BERT}LayerNorm.") if image_norm else None

    def image(self, image: Tensor) -> Tensor:
        weight, bias = self.encoder["img_embedding.weight"], self.encoder["img_embedding.bias"]
        projected = nn.functional.linear(image, weight, bias)
        if self.norm is None:
            return projected
        return nn.functional.layer_norm(projected, projected.shape[-1:], **self.norm, eps=1e-12)

    def tokens(self) -> Tokens:
        segments = self.encoder["embeddings.token_type_embeddings.weight"]
        words = self.encoder["embeddings.word_embeddings.weight"][self.golden["in/input_ids"]]
        mask = self.golden["in/attention_mask"][:, :-1].bool()  # the last is the image's
        return Tokens(words + segments[self.golden["in/token_type_ids"]], mask)

    def run(self, image: Tensor, target: Tensor, members: Tensor) -> dict[str, Tensor]:
        reference = self.image(image[:, 0])
        query = self.fusion(reference, reference, text_tokens=self.tokens())
        return {
            "query": self.length * query,
            "target": self.length * normalize(self.image(target[:, 0])),
            "members": self.length * normalize(self.image(members[:, :, 0])),
        }


@both_dtypes
def test_cirplant_equals_the_published_numbers(dtype: torch.dtype) -> None:
    model = Cirplant(dtype)
    golden, states = model.golden, []
    model.fusion.transformer[-1].register_forward_hook(lambda *run: states.append(run[-1]))
    inputs = golden.inputs("image", "target", "set_members")
    outputs = model.run(*inputs)
    for name, output in outputs.items():
        golden.check(output, f"eval/{name}")
    (state,), mask = states, golden["in/attention_mask"].bool()
    golden.assert_close(state[mask], golden["eval/sequence_output"][mask], "all positions")
    torch.autograd.backward(list(outputs.values()), [golden[f"g/{name}"] for name in outputs])
    for name, tensor in zip(("image", "target", "set_members"), inputs, strict=True):
        golden.check(tensor.grad, f"eval/grad_in/{name}")
    check_weights(golden, model.fusion, build_cirplant, "eval")
    for name, tensor in model.encoder.items():
        golden.check(tensor.grad, f"eval/grad_w/{BERT}{name}")
    golden.check(model.length.grad, "eval/grad_w/normalization_layer.norm_s")
    assert not golden[f"eval/grad_w/{BERT}pooler.dense.weight"].any()


@both_dtypes
def test_the_layer_norm_of_cirplant_s_images_is_the_encoder_s(dtype: torch.dtype) -> None:
    model = Cirplant(dtype, image_norm=True)
    inputs = [model.golden[f"in/{name}"] for name in ("image", "target", "set_members")]
    for name, output in model.run(*inputs).items():
        model.golden.check(output, f"layernorm/eval/{name}")


@both_dtypes
def test_the_loss_of_cirplant_is_infonce_with_one_negative(dtype: torch.dtype) -> None:
    golden = Golden("cirplant", dtype)
    names = ("query", "target", "members")
    sides = [golden[f"eval/{name}"].requires_grad_() for name in names]
    scale = golden["w/normalization_layer.norm_s"].item()
    rows = torch.cat([side.flatten(0, -2) for side in sides])
    loss, triplets = InfoNCE(1 / (2 * scale**2)), golden["loss/triplets"]
    value = torch.stack(
        [loss(rows[a][None], rows[p][None], negatives=rows[n][None, None]) for a, p, n in triplets]
    ).mean()
    value.backward()
    golden.check(value, "loss/value_float64")
    torch.testing.assert_close(
        value[None].double(), golden["loss/value"].double(), rtol=1e-5, atol=1e-6
    )
    for name, side in zip(names, sides, strict=True):
        # The published loss takes the scaled unit rows as they are.
        unit, true = (
            golden[key].flatten(0, -2) for key in (f"eval/{name}", f"loss/true_grad/{name}")
        )
        expected = along_the_sphere(true, unit / scale)
        assert side.grad is not None
        golden.assert_close(side.grad.flatten(0, -2), expected, name)


def test_the_published_backward_pass_of_cirplant_gives_half_of_the_derivative() -> None:
    golden = Golden("cirplant")
    sides = [golden[f"eval/{name}"].requires_grad_() for name in ("query", "target", "members")]
    rows = torch.cat([side.flatten(0, -2) for side in sides])
    anchor, positive, negative = (rows[column] for column in golden["loss/triplets"].T)
    near, far = ((anchor - other).square().sum(dim=1) for other in (positive, negative))
    nn.functional.softplus(near - far).mean().backward()
    for name, side in zip(("query", "target", "members"), sides, strict=True):
        golden.check(side.grad, f"loss/true_grad/{name}")
        published = golden[f"loss/published_grad/{name}"]
        torch.testing.assert_close(2 * published, side.grad, rtol=0, atol=1e-8)

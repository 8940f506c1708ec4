"""Each fusion equals its authors' module: values, gradients, BatchNorm's statistics, losses."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import TOLERANCES, Golden
from torch import Tensor, nn

from fusecomp._core.similarity import normalize
from fusecomp.fusions import (
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


def test_the_tirg_of_artemis_is_ours(shared: Callable[[str], Path]) -> None:
    """It has two coefficients, as ours, and unit length."""
    with np.load(shared("fusions/artemis.npz")) as arrays:
        tirg = {
            name.removeprefix("tirg/"): torch.from_numpy(arrays[name])
            for name in arrays
            if name.startswith("tirg/")
        }
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
        expected = gradient - (gradient * row).sum(dim=1, keepdim=True) * row
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

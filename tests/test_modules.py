"""What must be known of a callable that may or may not be a module."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusecomp.modules import (
    accepted_keywords,
    describe,
    device_of,
    fingerprint,
    inference,
    require_one_device,
)


def test_the_device_is_that_of_the_first_weight() -> None:
    assert device_of(len, nn.ReLU(), nn.Linear(2, 2, device="meta")) == torch.device("meta")


def test_a_buffer_tells_the_device_too() -> None:
    module = nn.Module()
    module.register_buffer("table", torch.empty(2, device="meta"))
    assert device_of(module) == torch.device("meta")


def test_without_weights_it_is_the_cpu() -> None:
    assert device_of(len, nn.ReLU()) == torch.device("cpu")
    assert device_of() == torch.device("cpu")


def test_two_parts_with_tensors_need_one_device() -> None:
    here, elsewhere = nn.Linear(2, 2), nn.Linear(2, 2, device="meta")
    for parts in ((here, here), (elsewhere, elsewhere), (elsewhere, nn.ReLU()), (len, elsewhere)):
        require_one_device(*parts)
    for parts, message in (((here, elsewhere), "cpu.*meta"), ((elsewhere, here), "meta.*cpu")):
        with pytest.raises(ValueError, match=f"the encoder is on {message}: move both to one"):
            require_one_device(*parts)


class Named(nn.Module):
    def forward(self, query: Tensor, *, target_ids: Tensor | None = None) -> Tensor:
        return query


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a, b: a, []),
        (lambda a, b, reference_ids: a, ["reference_ids"]),
        (lambda a, **ids: a, ["target_ids", "reference_ids"]),
        (Named(), ["target_ids"]),
        (torch.compile(Named(), backend="eager"), ["target_ids"]),
        (partial(lambda a, target_ids: a, 1), ["target_ids"]),
        (torch.add, []),
    ],
)
def test_keywords_that_a_callable_accepts(function: Any, expected: list[str]) -> None:
    assert accepted_keywords(function, ("target_ids", "reference_ids")) == expected


def mixed() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    model.train()
    model[1].eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_inference_evaluates_and_gives_each_module_its_own_mode_back() -> None:
    model = mixed()
    before = modes(model)
    assert True in before
    assert False in before
    with inference(model, len, model):
        assert not any(modes(model))
        assert not torch.is_grad_enabled()
        assert not model(torch.ones(2, 2)).requires_grad
    assert modes(model) == before
    assert torch.is_grad_enabled()


def test_an_error_inside_gives_the_modes_back_too() -> None:
    model = mixed()
    before = modes(model)
    with pytest.raises(RuntimeError), inference(model):
        raise RuntimeError
    assert modes(model) == before
    assert torch.is_grad_enabled()


WEIGHTS = torch.arange(6.0).reshape(2, 3)


def test_equal_weights_have_equal_fingerprints() -> None:
    spread = torch.zeros(2, 6)[:, ::2].copy_(WEIGHTS)
    assert not spread.is_contiguous()
    expected = fingerprint([("w", WEIGHTS)])
    assert fingerprint([("w", nn.Parameter(WEIGHTS.clone()))]) == expected
    assert fingerprint([("w", spread)]) == expected


@pytest.mark.parametrize(
    "other",
    [
        [("v", WEIGHTS)],
        [("w", WEIGHTS.nextafter(torch.tensor(9.0)))],
        [("w", WEIGHTS.reshape(3, 2))],
        [("w", WEIGHTS.double())],
        [("w", WEIGHTS.view(torch.int32))],
        [("w", WEIGHTS), ("v", torch.tensor(1))],
        [],
    ],
    ids=["name", "one bit", "shape", "precision", "dtype", "one more", "none"],
)
def test_other_weights_have_other_fingerprints(other: list[tuple[str, Tensor]]) -> None:
    assert fingerprint(other) != fingerprint([("w", WEIGHTS)])


@pytest.mark.parametrize(
    "tensor",
    [torch.tensor(3.0), torch.empty(0, 4), torch.ones(3).bfloat16(), torch.tensor([True])],
    ids=["scalar", "empty", "bfloat16", "bool"],
)
def test_every_kind_of_tensor_has_a_fingerprint(tensor: Tensor) -> None:
    assert len(fingerprint([("w", tensor)])) == 64


def doubled(value: int) -> int:
    return 2 * value


def test_a_function_is_described_by_its_code() -> None:
    same = describe(lambda x: x + 1), describe(lambda x: x + 1)
    assert same[0] == same[1]
    assert same[0] != describe(lambda x: x + 2)
    assert describe(doubled).startswith(f"{__name__}.doubled ")


class Plain:
    """Without a repr of its own."""


def test_an_object_that_tells_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Plain object at .*give it a __repr__"):
        describe(Plain())
    assert describe(nn.Linear(2, 3)) != describe(nn.Linear(2, 4))
    assert describe(partial(doubled, 2)) == "functools.partial(<function doubled>, 2)"


LOADS = """
from fusecomp.modules import describe

def load(path, *, size=224):
    kept = {".png", ".jpg", ".webp"}
    return [p for p in [path] if p.suffix in {".png", ".jpg", ".webp"} or (lambda: size)()]

print(describe(load))
"""


def test_a_function_is_described_alike_in_every_process(tmp_path: Path) -> None:
    outputs = set()
    for seed in ("1", "2"):
        script = tmp_path / seed / "script.py"
        script.parent.mkdir()
        script.write_text("\n" * int(seed) + LOADS)
        run = subprocess.run(
            [sys.executable, script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(run.stdout)
    assert len(outputs) == 1


def test_defaults_are_part_of_a_function() -> None:
    def first(path: str, *, size: int = 224) -> int:
        return size

    def second(path: str, *, size: int = 288) -> int:
        return size

    assert describe(first).split()[-1] != describe(second).split()[-1]


def test_descriptions_change_the_fingerprint() -> None:
    tensors = [("a", torch.ones(2))]
    keys = {fingerprint(tensors), fingerprint(tensors, "x"), fingerprint(tensors, "y")}
    assert len(keys) == 3
    assert fingerprint(tensors, "xy", "z") != fingerprint(tensors, "x", "yz")

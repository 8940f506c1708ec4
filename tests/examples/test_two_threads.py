"""Threads of the examples: how many, how they wait, and that they change no gradient."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tinyclip
import torch
import torch.nn.functional as F
import two_threads

EXAMPLES = Path(__file__).parents[2] / "examples"
# Imports an example, up to its first import of torch, and prints how long threads will spin.
FIRST_TORCH = """
import builtins, importlib, os, sys
original = builtins.__import__
def until_torch(name, *rest, **named):
    if name.partition(".")[0] == "torch":
        print(os.environ.get("GOMP_SPINCOUNT", "default"))
        os._exit(0 if sys.stdout.flush() is None else 1)
    return original(name, *rest, **named)
builtins.__import__ = until_torch
importlib.import_module(sys.argv[1])
"""


def spins(example: str, **given: str) -> str:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", FIRST_TORCH, example]
    return subprocess.run(
        command, env=environment | given, cwd=EXAMPLES, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("example", ["fashioniq_repro", "cirr_repro", "recipes", "compare_losses"])
def test_the_wait_is_set_before_torch_is_imported(example: str) -> None:
    assert spins(example) == two_threads.SPINS


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "default")],
)
def test_what_the_user_has_set_stays(given: dict[str, str], expected: str) -> None:
    assert spins("fashioniq_repro", **given) == expected


@pytest.mark.parametrize(("variable", "threads"), [(None, 2), ("1", 1)])
def test_two_threads_unless_the_user_says_a_number(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, threads: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        two_threads.limit_threads()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_thread_for_each_encoder_gives_the_gradients_of_one() -> None:
    torch.manual_seed(0)
    image, text = tinyclip.TinyImageEncoder(), tinyclip.TinyTextEncoder()
    parameters = [*image.parameters(), *text.parameters()]
    images = torch.randn(4, 3, 64, 64)
    texts = ["a red dress", "a long blue shirt", "dots", "no sleeves"]
    left, right = F.normalize(image(images), dim=-1), F.normalize(text(texts), dim=-1)
    logits = left @ right.T / 0.07
    target = torch.arange(4)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    gradients = torch.autograd.grad(expected, parameters)
    with ThreadPoolExecutor(1) as other:
        loss = tinyclip.contrast(image, text, images, texts, other)
    assert loss == expected.item()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_number_of_threads_is_afterwards_as_before() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), tinyclip.torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before

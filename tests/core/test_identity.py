"""Two things are told apart by all that changes a result, and by nothing else."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fusecomp._core.identity import describe, differences, fingerprint, hash_tensors, settings

WEIGHTS = torch.arange(6.0).reshape(2, 3)


def test_equal_weights_have_equal_hashes() -> None:
    spread = torch.zeros(2, 6)[:, ::2].copy_(WEIGHTS)
    assert not spread.is_contiguous()
    expected = hash_tensors([("w", WEIGHTS)])
    assert hash_tensors([("w", nn.Parameter(WEIGHTS.clone()))]) == expected
    assert hash_tensors([("w", spread)]) == expected


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
def test_other_weights_have_other_hashes(other: list[tuple[str, Tensor]]) -> None:
    assert hash_tensors(other) != hash_tensors([("w", WEIGHTS)])


@pytest.mark.parametrize(
    "tensor",
    [torch.tensor(3.0), torch.empty(0, 4), torch.ones(3).bfloat16(), torch.tensor([True])],
    ids=["scalar", "empty", "bfloat16", "bool"],
)
def test_every_kind_of_tensor_has_a_hash(tensor: Tensor) -> None:
    assert len(hash_tensors([("w", tensor)])) == 64


def test_compiling_changes_no_hash_of_weights() -> None:
    compiled: Any = torch.compile(linear(0), backend="eager")
    assert fingerprint(compiled) == fingerprint(linear(0))
    inside = nn.Sequential(compiled)
    assert fingerprint(inside) == fingerprint(nn.Sequential(linear(0)))


def test_quantised_weights_are_told_apart() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces another way to quantise
        one, same, other = (
            torch.ao.quantization.quantize_dynamic(nn.Sequential(linear(seed)), {nn.Linear})
            for seed in (0, 0, 1)
        )
        assert fingerprint(one) == fingerprint(same)
        assert fingerprint(one) != fingerprint(other)


def scaled(value: float) -> float:
    return 2.0 * value


def closing_over(value: Any) -> Callable[[], Any]:
    def inner() -> Any:
        return value

    return inner


def linear(seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


@dataclass
class Settings:
    """A user's own."""

    scale: float
    hidden: Any = field(default=None, repr=False)


class Attributes:
    """Without a repr of its own, but with attributes that tell."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def method(self) -> None:
        """Do nothing."""


class Printed:
    """With a repr of its own."""

    def __init__(self, shown: Any, notes: Any = None, code: Any = None) -> None:
        self.shown, self.notes, self.code = shown, notes, code

    def __repr__(self) -> str:
        return f"Printed({self.shown})"


class Own(nn.Module):
    """A module with attributes of any kind."""

    def __init__(self, **values: Any) -> None:
        super().__init__()
        for name, value in values.items():
            setattr(self, name, value)


class Slotted:
    """Attributes without a dict."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value


def noted(value: Any) -> Callable[[], None]:
    def inner() -> None:
        """Do nothing."""

    inner.value = value  # type: ignore[attr-defined]
    return inner


def wrapped(factor: float) -> Callable[[Any, Tensor], Tensor]:
    @functools.wraps(nn.Linear.forward)
    def forward(self: Any, x: Tensor) -> Tensor:
        return factor * x

    return forward


def changed(module: nn.Module, **values: Any) -> nn.Module:
    for name, value in values.items():
        setattr(module, name, value)
    return module


# Pairs of what must be told apart.
OTHER = {
    "number": (1, 2),
    "number and text": (1, "1"),
    "float": (0.5, 0.5 + 2**-53),
    "dtype": (torch.float16, torch.bfloat16),
    "order": ((1, 2), (2, 1)),
    "depth": ([1, [2]], [[1], 2]),
    "commas": (("a", "b"), ("a, b",)),
    "key": ({"a": 1}, {"b": 1}),
    "array": (np.arange(2000), np.arange(2000) + (np.arange(2000) == 1000)),
    "tensor": (torch.arange(2000), torch.arange(2000) + (torch.arange(2000) == 1000)),
    "closed-over number": (closing_over(1), closing_over(2)),
    "closed-over tensor": (closing_over(torch.ones(1)), closing_over(torch.zeros(1))),
    "closed-over module": (closing_over(linear(0)), closing_over(linear(1))),
    "closed-over function": (closing_over(lambda x: x), closing_over(lambda x: x + 1)),
    "partial": (partial(scaled, 1), partial(scaled, 2)),
    "partial's keyword": (partial(scaled, value=1), partial(scaled, value=2)),
    "partial's function": (partial(lambda x: x, 1), partial(lambda x: -x, 1)),
    "method's object": (Attributes(a=1).method, Attributes(a=2).method),
    "cached function": (functools.cache(lambda x: x), functools.cache(lambda x: -x)),
    "torch's function": (torch.relu, torch.sigmoid),
    "dataclass": (Settings(1.0), Settings(2.0)),
    "dataclass of arrays": (Settings(torch.arange(2000.0)), Settings(torch.ones(2000))),  # type: ignore[arg-type]
    "attribute": (Attributes(a=1), Attributes(a=2)),
    "attribute within": (Attributes(a=Attributes(b=1)), Attributes(a=Attributes(b=2))),
    "repr": (Printed(1), Printed(2)),
    "function behind a repr": (
        Printed(1, code=lambda x: x),
        Printed(1, code=lambda x: -x),
    ),
    "functions in a list behind a repr": (
        Printed(1, code=[lambda x: x]),
        Printed(1, code=[lambda x: -x]),
    ),
    "class of a module": (nn.ReLU(), nn.GELU()),
    "argument of a module": (nn.GELU(), nn.GELU(approximate="tanh")),
    "dropout": (nn.Dropout(0.1), nn.Dropout(0.2)),
    "shape": (nn.Linear(2, 3), nn.Linear(3, 2)),
    "structure": (nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU(), nn.ReLU())),
    "weights": (linear(0), linear(1)),
    "module's number": (Own(scale=1.0), Own(scale=2.0)),
    "module's private number": (Own(_scale=1.0), Own(_scale=2.0)),
    "module's text": (Own(prompt="a"), Own(prompt="b")),
    "module's mapping": (Own(prompts={"query": ""}), Own(prompts={"query": "q: "})),
    "module's function": (Own(act=lambda x: x), Own(act=lambda x: -x)),
    "module's settings": (Own(settings=Settings(1.0)), Own(settings=Settings(2.0))),
    "module's array": (Own(mean=np.zeros(3)), Own(mean=np.ones(3))),
    "module's callable": (Own(load_image=Attributes(size=1)), Own(load_image=Attributes(size=2))),
    "name of an argument": (lambda q, target_ids: q, lambda q, reference_ids: q),
    "attribute of a function": (noted(1), noted(2)),
    "object with slots": (Slotted(1), Slotted(2)),
    "plain value of a class": (type("Own", (), {"T": 1})(), type("Own", (), {"T": 2})()),
    "method of a mapping": ({"a": 1}.__getitem__, {"a": 2}.__getitem__),
    "large array of a namespace": (
        SimpleNamespace(a=torch.arange(2000)),
        SimpleNamespace(a=torch.arange(2000) % 1999),
    ),
    "array behind a repr": (Printed(1, code=np.arange(2000)), Printed(1, code=np.ones(2000))),
    "module with slots": (Own(load_image=Slotted(1)), Own(load_image=Slotted(2))),
    "replaced method": (
        changed(nn.Linear(2, 2), forward=MethodType(wrapped(1), nn.Linear(2, 2))),
        changed(nn.Linear(2, 2), forward=MethodType(wrapped(2), nn.Linear(2, 2))),
    ),
    "traced function": (
        torch.fx.symbolic_trace(nn.Sequential(nn.ReLU())),
        torch.fx.symbolic_trace(nn.Sequential(nn.Tanh())),
    ),
    "number deep inside": (nn.Sequential(Own(scale=1)), nn.Sequential(Own(scale=2))),
}


@pytest.mark.parametrize("pair", OTHER.values(), ids=OTHER.keys())
def test_what_differs_is_told_apart(pair: tuple[Any, Any]) -> None:
    assert describe(pair[0]) != describe(pair[1])
    if all(isinstance(part, nn.Module) for part in pair) and pair[0] is not OTHER["weights"][0]:
        assert settings(pair[0], "part") != settings(pair[1], "part")
        assert fingerprint(pair[0]) != fingerprint(pair[1])


# Pairs of what must count as the same.
SAME = {
    "mode": (linear(0), linear(0).eval()),
    "frozen": (linear(0), linear(0).requires_grad_(False)),
    "checkpointing": (Own(gradient_checkpointing=False), Own(gradient_checkpointing=True)),
    "place": (Own(name_or_path="/a"), Own(name_or_path="/b")),
    "device": (Own(device="cpu"), Own(device="cuda:0")),
    "hook": (linear(0), changed(linear(0), _forward_hooks={1: print})),
    "library's note": (linear(0), changed(linear(0), _is_initialized=True)),
    "sets": ({0, 8}, {8, 0}),  # each has an order of its own
    "addresses": (closing_over(object()), closing_over(object())),
    "notes behind a repr": (Printed(1, notes=[1]), Printed(1, notes=[2])),
    "private notes": (Own(_seen={"a": 1}), Own(_seen={"b": 2})),
    "private tensor": (Own(_last=torch.ones(1)), Own(_last=None)),
    "sets of a namespace": (SimpleNamespace(a={"x", "y"}), SimpleNamespace(a={"y", "x"})),
    "hidden field": (Settings(1.0, hidden=1), Settings(1.0, hidden=2)),
    "compiled": (linear(0), torch.compile(linear(0), backend="eager")),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME.keys())
def test_what_changes_no_result_counts_for_nothing(pair: tuple[Any, Any]) -> None:
    if isinstance(pair[0], nn.Module):
        assert settings(pair[0], "part") == settings(pair[1], "part")
    else:
        assert describe(pair[0]) == describe(pair[1])


def test_the_place_of_a_setting_is_named() -> None:
    old = settings(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), "fusion")
    new = settings(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2)), "fusion")
    assert list(differences(old, new)) == ["fusion.1.p was '0.1' and is now '0.2'"]


def test_entries_that_come_and_go_are_differences() -> None:
    found = list(differences({"a": 1, "b": 2}, {"b": 2, "c": 3}))
    assert found == ["c was not there and is now 3", "a was 1 and is gone"]


def test_what_holds_itself_comes_to_an_end() -> None:
    rows: list[Any] = [1]
    rows.append(rows)
    module = Own(values=rows)
    module.method = module.forward  # type: ignore[assignment]
    vars(module)["itself"] = [module]
    assert settings(module, "part")["part.itself"] == "[itself]"
    assert describe(rows) == "[1, itself]"


def test_a_callable_attribute_that_tells_nothing_is_refused() -> None:
    class Opaque:
        def __call__(self) -> None:
            """Do nothing."""

    with pytest.raises(ValueError, match=r"Opaque object at .*does not tell its settings"):
        settings(Own(load_image=Opaque()), "encoder")


def test_other_objects_of_a_module_may_tell_nothing() -> None:
    generator = torch.Generator()
    assert "part.generator" not in settings(Own(generator=generator), "part")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


def form(value: Any) -> Any:
    """Equal for what is the same to a reader: 1, 1.0 and True are not, nor are 0.0 and -0.0."""
    if isinstance(value, dict):
        return dict, tuple((key, form(inner)) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(form(inner) for inner in value)
    return type(value), repr(value)


@given(plain, plain)
def test_plain_values_are_the_same_only_if_they_are_equal(one: Any, other: Any) -> None:
    assert (describe(one) == describe(other)) == (form(one) == form(other))
    assert (settings(Own(a=one), "m") == settings(Own(a=other), "m")) == (form(one) == form(other))

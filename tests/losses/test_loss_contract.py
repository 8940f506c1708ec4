"""One contract for every loss of the package."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import own_error
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fusecomp import losses
from fusecomp.losses import (
    Bank,
    CombinedLoss,
    CosineAlignmentLoss,
    DistillationLoss,
    HardNegativeNCE,
    InfoNCE,
    LearnableTemperature,
    MultiPositiveNCE,
    Queue,
    SigmoidLoss,
    TripletMarginLoss,
)
from fusecomp.losses._pairs import check_ids

# What losses are made of, and no loss themselves.
PARTS = {"Bank", "LearnableTemperature", "Queue"}
# How one of each is made; the temperatures keep gradients of random features alive.
MAKE: dict[str, Callable[[], nn.Module]] = {
    "InfoNCE": lambda: InfoNCE(temperature=0.2),
    "InfoNCE, symmetric": lambda: InfoNCE(
        LearnableTemperature(0.2), True, exclude="target", label_smoothing=0.1, margin=0.1
    ),
    "InfoNCE, bank": lambda: InfoNCE(0.2, exclude=("target", "reference"), memory=bank()),
    "InfoNCE, queue": lambda: InfoNCE(LearnableTemperature(0.2), margin=0.1, memory=Queue(5, 6)),
    "CosineAlignmentLoss": CosineAlignmentLoss,
    "DistillationLoss": lambda: DistillationLoss(*teacher(), temperature=LearnableTemperature(0.2)),
    "HardNegativeNCE": lambda: HardNegativeNCE(0.2, beta=0.5),
    "HardNegativeNCE, bank": lambda: HardNegativeNCE(0.2, memory=bank()),
    "HardNegativeNCE, decoupled": lambda: HardNegativeNCE(
        LearnableTemperature(0.2), alpha=0.0, beta=1.0, exclude=("target", "reference")
    ),
    "MultiPositiveNCE": lambda: MultiPositiveNCE(LearnableTemperature(0.2)),
    "MultiPositiveNCE, bank": lambda: MultiPositiveNCE(0.2, memory=bank()),
    "SigmoidLoss": lambda: SigmoidLoss(0.2, bias=-1.0),
    "SigmoidLoss, as published": lambda: SigmoidLoss(exclude="target"),
    "SigmoidLoss, queue": lambda: SigmoidLoss(0.2, bias=-1.0, memory=Queue(5, 6)),
    "TripletMarginLoss": lambda: TripletMarginLoss(2.5, "hardest"),
    "TripletMarginLoss, semi-hard": lambda: TripletMarginLoss(2.5, exclude="target"),
    "TripletMarginLoss, all": lambda: TripletMarginLoss(2.5, "all"),
    "TripletMarginLoss, bank": lambda: TripletMarginLoss(2.5, "hardest", memory=bank()),
    "CombinedLoss": lambda: CombinedLoss(
        {"find": (0.3, InfoNCE(LearnableTemperature(0.2))), "align": (2.0, CosineAlignmentLoss())}
    ),
}
BAD = {
    "unequal rows": (torch.ones(2, 6), torch.ones(3, 6)),
    "unequal widths": (torch.ones(2, 6), torch.ones(2, 7)),
    "one vector": (torch.ones(6), torch.ones(6)),
    "unequal ranks": (torch.ones(2, 6), torch.ones(2, 6, 1)),
    "unequal dtypes": (torch.ones(2, 6), torch.ones(2, 6).double()),
    "one row": (torch.ones(1, 6), torch.ones(1, 6)),
    "no rows": (torch.ones(0, 6), torch.ones(0, 6)),
    "no columns": (torch.ones(2, 0), torch.ones(2, 0)),
    "integers": (torch.ones(2, 6).long(), torch.ones(2, 6).long()),
    "complex numbers": (torch.ones(2, 6) * 1j, torch.ones(2, 6) * 1j),
    "eight bits": (torch.ones(2, 6).to(torch.float8_e4m3fn),) * 2,
    "sparse": (torch.eye(6).to_sparse(), torch.eye(6).to_sparse()),
    "sparse rows": (torch.eye(6), torch.eye(6).to_sparse()),
    "unequal devices": (torch.ones(2, 6), torch.ones(2, 6, device="meta")),
}
# These have candidates beside the batch, or none at all.
TAKE_ONE_ROW = {"CosineAlignmentLoss", *(name for name in MAKE if name.endswith(("bank", "queue")))}
# Not every row has a gradient.
SPARSE = {"TripletMarginLoss, semi-hard"}
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16)
# Both show a graph break; the second one traces gradients too, which takes thrice the time.
BACKENDS = ("eager", pytest.param("aot_eager", marks=pytest.mark.heavy))
every_loss = pytest.mark.parametrize("name", MAKE)


def make(name: str) -> nn.Module:
    return MAKE[name]()


def features(rows: int = 8, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    query, target = torch.randn(2, rows, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    return query.requires_grad_(), target.requires_grad_()


def bank() -> Bank:
    """No target of the contract is in it."""
    return Bank(features()[0], 50 + torch.arange(8))


def ids(rows: int) -> dict[str, Tensor]:
    """Every row has a target of its own, and no target is a reference."""
    return {"target_ids": torch.arange(rows), "reference_ids": 100 + torch.arange(rows)}


def teacher() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of all ids of the contract; wider than the features."""
    queries, targets = torch.randn(2, 8, 9, generator=torch.Generator().manual_seed(2))
    target_ids, reference_ids = ids(8).values()
    return queries, torch.stack((reference_ids, target_ids), dim=1), targets, target_ids


def call(module: Any, query: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = module(query, target, **ids(len(query)))
    return loss


def test_every_loss_is_held_to_the_contract() -> None:
    assert {name.partition(",")[0] for name in MAKE} | PARTS == set(losses.__all__)


def test_every_file_of_a_loss_is_public() -> None:
    found = set()
    for info in pkgutil.iter_modules(losses.__path__, "fusecomp.losses."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if (
                inspect.isclass(value)
                and value.__module__ == info.name
                and not name.startswith("_")
                and not (inspect.isabstract(value) or issubclass(value, tuple))
                and "target" in inspect.signature(getattr(value, "forward", value)).parameters
            ):
                found.add(name)
    assert found <= set(losses.__all__)


@pytest.mark.parametrize("page", ["docs/losses.md", "CHANGELOG.md"])
def test_every_loss_is_written_down(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text()
    assert [name for name in losses.__all__ if name not in PARTS and name not in text] == []


@every_loss
def test_ids_come_by_keyword(name: str) -> None:
    parameters = inspect.signature(make(name).forward).parameters
    assert list(parameters)[:4] == ["query", "target", "target_ids", "reference_ids"]
    for keyword in list(parameters.values())[2:]:
        assert keyword.kind is keyword.KEYWORD_ONLY
        assert keyword.default is None


@every_loss
@pytest.mark.parametrize("rows", [2, 8])
def test_it_is_a_finite_scalar_with_gradients_for_both(name: str, rows: int) -> None:
    query, target = features(rows)
    loss = call(make(name), query, target)
    assert loss.shape == ()
    assert loss.isfinite()
    loss.backward()
    for tensor in (query, target):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        learns = tensor.grad.any(dim=1)
        assert learns.any() if name in SPARSE else learns.all()


@every_loss
def test_the_order_of_the_batch_is_irrelevant(name: str) -> None:
    query, target = features()
    order = torch.randperm(8)
    shuffled = {key: value[order] for key, value in ids(8).items()}
    torch.testing.assert_close(
        make(name)(query[order], target[order], **shuffled), call(make(name), query, target)
    )


@every_loss
def test_it_depends_on_who_belongs_to_whom(name: str) -> None:
    query, target = features()
    other = call(make(name), query, target.roll(1, 0))
    assert not torch.isclose(other, call(make(name), query, target))


@every_loss
def test_scaling_features_does_not_move_it(name: str) -> None:
    query, target = features()
    scaled, plain = call(make(name), 3 * query, 0.1 * target), call(make(name), query, target)
    torch.testing.assert_close(scaled, plain, rtol=1e-6, atol=1e-6)


@every_loss
def test_strides_do_not_matter(name: str) -> None:
    query, target = features()
    transposed = [x.detach().T.contiguous().T.requires_grad_() for x in (query, target)]
    columns = torch.stack(tuple(ids(8).values()), dim=1)
    first, second = (
        call(make(name), query, target),
        make(name)(*transposed, target_ids=columns[:, 0], reference_ids=columns[:, 1]),
    )
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(
        torch.autograd.grad(first, (query, target)), torch.autograd.grad(second, transposed)
    )


@every_loss
def test_nothing_needs_to_learn(name: str) -> None:
    query, target = (x.detach() for x in features())
    module = make(name)
    with torch.no_grad():
        assert torch.equal(call(make(name), query, target), call(module, query, target))


@every_loss
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_without_a_graph_break_it_is_the_same(name: str, backend: str) -> None:
    plain = make(name)
    module = make(name)
    module.load_state_dict(plain.state_dict())
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    query, target = features()
    for _ in range(2):  # a queue changes
        loss, expected = call(compiled, query, target), call(plain, query, target)
        torch.testing.assert_close(loss, expected)
        gradients = torch.autograd.grad(loss, (query, target, *module.parameters()))
        torch.testing.assert_close(
            gradients, torch.autograd.grad(expected, (query, target, *plain.parameters()))
        )
    torch.testing.assert_close(module.state_dict(), plain.state_dict())


@every_loss
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    query, target = features(4, torch.float64)
    module = make(name).double().eval()
    assert call(module, query, target).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda q, t: call(module, q, t), (query, target))


class Narrow(TorchDispatchMode):
    """Notes the operations that give floating numbers below float64."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_floating_point() and out.dtype != torch.float64:
            self.seen.append(str(func))
        return out


@every_loss
def test_float64_is_float64_inside_too(name: str) -> None:
    query, target = features(4, torch.float64)
    module = make(name).double()
    with Narrow() as narrow:
        loss = call(module, query, target)
        torch.autograd.grad(loss, (query, target, *module.parameters()))
    assert narrow.seen == []


@every_loss
def test_a_second_derivative_is_right_or_refused(name: str) -> None:
    query, target = features(4, torch.float64)
    module = make(name).double().eval()
    try:
        torch.autograd.grad(call(module, query, target), query, create_graph=True)
    except RuntimeError as error:
        assert "no second derivative" in str(error)
    else:
        assert torch.autograd.gradgradcheck(lambda q, t: call(module, q, t), (query, target))


@every_loss
def test_a_second_backward_adds_the_same_gradient(name: str) -> None:
    query, target = features()
    loss = call(make(name), query, target)
    loss.backward(retain_graph=True)
    assert query.grad is not None
    once = query.grad.clone()
    loss.backward()
    torch.testing.assert_close(query.grad, 2 * once)


@every_loss
def test_the_gradient_from_above_scales_it(name: str) -> None:
    query, target = features()
    for factor in (3.0, 1024.0):
        first, second = make(name), make(name)
        once = torch.autograd.grad(call(first, query, target), (query, *first.parameters()))
        scaled = torch.autograd.grad(
            factor * call(second, query, target), (query, *second.parameters())
        )
        torch.testing.assert_close(scaled, tuple(factor * gradient for gradient in once))


@every_loss
def test_a_gradient_scaler_scales_exactly(name: str) -> None:
    """By a power of two: no digit may change."""
    gradients = []
    for scale in (1.0, 1024.0):
        query, target = features()
        module = make(name)
        loss = torch.amp.GradScaler("cpu", init_scale=scale).scale(call(module, query, target))
        inputs = (query, target, *module.parameters())
        gradients.append([g / scale for g in torch.autograd.grad(loss, inputs)])
    assert all(map(torch.equal, *gradients))


@every_loss
def test_the_state_dict_holds_all_of_it(name: str) -> None:
    first, second = make(name), make(name)
    for weight in first.parameters():
        nn.init.normal_(weight)
    call(first, *features())
    second.load_state_dict(first.state_dict())
    assert torch.equal(call(first, *features()), call(second, *features()))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_inputs_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    query, target = features(8, dtype)
    loss = call(make(name), query, target)
    assert loss.dtype == torch.float32
    expected = call(make(name), query.float(), target.float())
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


@every_loss
def test_autocast_does_not_lower_it(name: str) -> None:
    query, target = features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = call(make(name), query, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, call(make(name), query, target))


@every_loss
def test_autocast_does_not_lower_its_gradients(name: str) -> None:
    query, target = features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = call(make(name), query, target)
    (inside,) = torch.autograd.grad(loss, query)
    (outside,) = torch.autograd.grad(call(make(name), query, target), query)
    assert torch.equal(inside, outside)


@every_loss
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_refused(name: str, bad: str) -> None:
    query, target = BAD[bad]
    if bad == "one row" and name in TAKE_ONE_ROW:
        assert call(make(name), query, target).isfinite()
        return
    with pytest.raises(ValueError, match=r"query|target|rows"):
        call(make(name), query, target)


@every_loss
@pytest.mark.parametrize("which", ["target_ids", "reference_ids"])
def test_ids_of_another_kind_or_device_are_refused(name: str, which: str) -> None:
    module, own = make(name), ids(8)[which]
    for wrong in (own.tolist(), own.numpy(), "ids", 3, own.to("meta"), own.to_sparse(), own * 1j):
        message = own_error(module, *features(), **{**ids(8), which: wrong})
        assert message.startswith(which)


# Features that are kept: which argument they are, and what is made with them.
KEPT: dict[str, Callable[[Tensor], nn.Module]] = {
    "features": lambda kept: Bank(kept, torch.arange(8)),
    "queries": lambda kept: DistillationLoss(kept, *teacher()[1:]),
    "targets": lambda kept: DistillationLoss(*teacher()[:2], kept, teacher()[3]),
}


@pytest.mark.parametrize("name", KEPT)
@settings(max_examples=20, deadline=None)
@given(
    row=st.integers(0, 7),
    column=st.integers(0, 8),
    value=st.sampled_from([torch.nan, torch.inf, -torch.inf]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_features_that_are_kept_are_finite(
    name: str, row: int, column: int, value: float, dtype: torch.dtype
) -> None:
    kept = torch.ones(8, 9, dtype=dtype)
    assert KEPT[name](kept.float() if name != "features" else kept)
    kept[row, column] = value
    assert own_error(KEPT[name], kept) == f"{name} row {row} holds NaN or infinity"


@pytest.mark.parametrize("name", [n for n in MAKE if make(n).state_dict().keys() - {"bias"}])
def test_a_state_dict_brings_no_features_that_are_not_finite(name: str) -> None:
    state = make(name).state_dict()
    for key in [key for key in state if key.endswith("features")]:
        broken = {**state, key: state[key].clone()}
        broken[key][1, 0] = torch.nan
        message = own_error(make(name).load_state_dict, broken)
        assert message.startswith("the state dict's features of ")
        assert message.endswith(" row 1 holds NaN or infinity")
    make(name).load_state_dict(state)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_ids_of_every_integer_dtype_are_taken(dtype: torch.dtype) -> None:
    checked = check_ids(torch.tensor([3, 200]).to(dtype), torch.ones(2), "target_ids")
    assert checked.dtype == torch.int64
    assert torch.equal(checked, torch.tensor([3, 200]).to(dtype).long())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.complex64])
def test_ids_that_are_no_integers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"target_ids must be integers, got {dtype}"):
        check_ids(torch.ones(2, dtype=dtype), torch.ones(2), "target_ids")


@pytest.mark.parametrize("ids", [torch.arange(7), torch.arange(8).unsqueeze(1)], ids=["7", "8x1"])
def test_ids_of_another_length_are_refused(ids: Tensor) -> None:
    with pytest.raises(ValueError, match=r"target_ids must be \[8\].* got \["):
        check_ids(ids, torch.ones(8), "target_ids")


@every_loss
@pytest.mark.parametrize("keyword", ["target_ids", "reference_ids"])
def test_every_loss_checks_its_ids(name: str, keyword: str) -> None:
    query, target = features()
    narrow = {key: value.to(torch.uint8) for key, value in ids(8).items()}
    assert torch.equal(make(name)(query, target, **narrow), call(make(name), query, target))
    with pytest.raises(ValueError, match=f"{keyword} must be integers"):
        make(name)(query, target, **{**ids(8), keyword: torch.ones(8)})


@every_loss
def test_what_is_no_tensor_is_named_with_the_way_out(name: str) -> None:
    loss, query, array = make(name), features()[0], np.ones((8, 6), "f4")
    for inputs, wrong in (((array, query), "query"), ((query, array), "target")):
        with pytest.raises(
            TypeError, match=f"{wrong} must be a torch tensor, got ndarray; .*_numpy"
        ):
            call(loss, *inputs)


@every_loss
def test_a_gpu_gives_the_same(name: str, cuda: torch.device) -> None:
    pair, loss, known = features(8, torch.float64), make(name), ids(8)
    here = loss(*pair, **known)
    moved = {key: value.to(cuda) for key, value in known.items()}
    there = loss.to(cuda)(*(tensor.to(cuda) for tensor in pair), **moved)
    torch.testing.assert_close(there.cpu(), here)
    for one, other in zip(
        *(torch.autograd.grad(value, pair) for value in (there, here)), strict=True
    ):
        torch.testing.assert_close(one, other)

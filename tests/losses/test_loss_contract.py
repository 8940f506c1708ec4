"""One contract for every loss of the package."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_losses import MAKE, call, features, ids, make
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fusecomp import losses

# What losses are made of, and no loss themselves.
PARTS = {"Bank", "LearnableTemperature", "Queue"}
# Not every row has a gradient.
SPARSE = {"TripletMarginLoss, semi-hard"}
# Both show a graph break; the second one traces gradients too, which takes thrice the time.
BACKENDS = ("eager", pytest.param("aot_eager", marks=pytest.mark.heavy))
every_loss = pytest.mark.parametrize("name", MAKE)


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

"""One contract for every loss of the package."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fusecomp import losses

# How one of each is made; the temperatures keep gradients of random features alive.
MAKE: dict[str, Callable[[], nn.Module]] = {
    "InfoNCE": lambda: losses.InfoNCE(temperature=0.2),
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
}
every_loss = pytest.mark.parametrize("name", losses.__all__)


def make(name: str) -> nn.Module:
    return MAKE[name]()


def features(rows: int = 8, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    query, target = torch.randn(2, rows, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    return query.requires_grad_(), target.requires_grad_()


def test_every_loss_is_held_to_the_contract() -> None:
    assert sorted(MAKE) == sorted(losses.__all__)


@every_loss
@pytest.mark.parametrize("rows", [2, 8])
def test_it_is_a_finite_scalar_with_gradients_for_both(name: str, rows: int) -> None:
    query, target = features(rows)
    loss = make(name)(query, target)
    assert loss.shape == ()
    assert loss.isfinite()
    loss.backward()
    for tensor in (query, target):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any(dim=1).all()


@every_loss
def test_the_order_of_the_batch_is_irrelevant(name: str) -> None:
    query, target = features()
    order = torch.randperm(8)
    torch.testing.assert_close(make(name)(query[order], target[order]), make(name)(query, target))


@every_loss
def test_it_depends_on_who_belongs_to_whom(name: str) -> None:
    query, target = features()
    assert not torch.isclose(make(name)(query, target.roll(1, 0)), make(name)(query, target))


@every_loss
def test_scaling_features_does_not_move_it(name: str) -> None:
    query, target = features()
    torch.testing.assert_close(make(name)(3 * query, 0.1 * target), make(name)(query, target))


@every_loss
def test_compiled_without_a_graph_break_it_is_the_same(name: str) -> None:
    module = make(name)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    query, target = features()
    loss = compiled(query, target)
    torch.testing.assert_close(loss, module(query, target))
    (gradient,) = torch.autograd.grad(loss, query)
    (expected,) = torch.autograd.grad(module(query, target), query)
    torch.testing.assert_close(gradient, expected)


@every_loss
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    query, target = features(4, torch.float64)
    assert make(name)(query, target).dtype == torch.float64
    assert torch.autograd.gradcheck(make(name), (query, target))


@every_loss
def test_the_state_dict_holds_all_of_it(name: str) -> None:
    first, second = make(name), make(name)
    for weight in first.parameters():
        nn.init.normal_(weight)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*features()), second(*features()))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_inputs_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    query, target = features(8, dtype)
    loss = make(name)(query, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, make(name)(query.float(), target.float()), rtol=0, atol=0)


@every_loss
def test_autocast_does_not_lower_it(name: str) -> None:
    query, target = features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = make(name)(query, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, make(name)(query, target))


@every_loss
def test_autocast_does_not_lower_its_gradients(name: str) -> None:
    query, target = features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = make(name)(query, target)
    (inside,) = torch.autograd.grad(loss, query)
    (outside,) = torch.autograd.grad(make(name)(query, target), query)
    assert torch.equal(inside, outside)


@every_loss
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_refused(name: str, bad: str) -> None:
    with pytest.raises(ValueError, match=r"query|target|rows"):
        make(name)(*BAD[bad])


@every_loss
def test_what_is_no_tensor_is_named_with_the_way_out(name: str) -> None:
    loss, query, array = make(name), features()[0], np.ones((8, 6), "f4")
    for inputs, wrong in (((array, query), "query"), ((query, array), "target")):
        with pytest.raises(
            TypeError, match=f"{wrong} must be a torch tensor, got ndarray; .*_numpy"
        ):
            loss(*inputs)


@every_loss
@pytest.mark.parametrize("rows", [8, 2500])
def test_a_gpu_gives_the_same(name: str, rows: int, cuda: torch.device) -> None:
    pair, loss = features(rows, torch.float64), make(name)
    here = loss(*pair)
    there = loss.to(cuda)(*(tensor.to(cuda) for tensor in pair))
    torch.testing.assert_close(there.cpu(), here)
    for one, other in zip(
        *(torch.autograd.grad(value, pair) for value in (there, here)), strict=True
    ):
        torch.testing.assert_close(one, other)

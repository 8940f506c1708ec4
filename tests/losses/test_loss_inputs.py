"""What every loss refuses, and the way out that it names."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import own_error
from small_losses import MAKE, call, features, ids, make, teacher
from torch import Tensor, nn

from fusecomp.losses import Bank, DistillationLoss
from fusecomp.losses._pairs import check_ids

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
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16)
every_loss = pytest.mark.parametrize("name", MAKE)


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

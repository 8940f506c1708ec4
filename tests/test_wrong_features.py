"""Tensors, ranks and rows of a wrong kind, at every public argument: the error names it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from raising import own_error
from torch import Tensor
from wrong_kinds import CACHED, EYE, IDS, MODEL, Call, argument_of

from fusecomp import evaluation, losses, retrieval
from fusecomp._core.similarity import cosine, normalize

# Features: tensors [rows, D] that can be computed with.

QUERY_IDS = torch.stack((IDS, IDS), 1)
FEATURES: dict[str, Call] = {
    "query of search": lambda v: retrieval.search(v, EYE, 1),
    "gallery of search": lambda v: retrieval.search(EYE, v, 1),
    "query of search_targets": lambda v: retrieval.search_targets(v, EYE, IDS, 1),
    "query of feature_cosines": lambda v: evaluation.feature_cosines(v, EYE, IDS),
    "features of Bank": lambda v: losses.Bank(v, IDS),
    "queries of DistillationLoss": lambda v: losses.DistillationLoss(v, QUERY_IDS, EYE, IDS),
    "targets of DistillationLoss": lambda v: losses.DistillationLoss(EYE, QUERY_IDS, v, IDS),
    "a of cosine": lambda v: cosine(v, EYE),
    "b of cosine": lambda v: cosine(EYE, v),
    "image of compose": lambda v: MODEL.compose(v, EYE),
    "text of compose": lambda v: MODEL.compose(EYE, v),
}
NO_FEATURES: list[Any] = [
    *(None, "features", 1.0, [[1.0]], np.eye(3) > 0, EYE.tolist(), {0: EYE}, iter(EYE), object()),
    *(EYE[0], EYE[None], torch.tensor(1.0), torch.ones(0, 3), torch.ones(3, 0)),
    *(EYE.long(), EYE.bool(), EYE.to(torch.complex64)),
    *(EYE.to(torch.float8_e4m3fn), EYE.to(torch.float8_e5m2)),
    *(EYE.to_sparse(), torch.nested.nested_tensor([EYE, EYE[:2]], layout=torch.jagged)),
]


@pytest.mark.parametrize("name", FEATURES)
def test_what_are_no_features_are_named(name: str) -> None:
    for value in NO_FEATURES:
        message = own_error(FEATURES[name], value)
        assert message.startswith(argument_of(name)), value
        assert " must be " in message or " must have " in message or " belong " in message, value


KEPT = [name for name in FEATURES if argument_of(name) in ("features", "queries", "targets")]


@pytest.mark.parametrize("name", KEPT + [n for n in FEATURES if "search" in n or "ranks" in n])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_row_that_is_not_finite_is_named(name: str, value: float) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        broken = EYE.to(dtype, copy=True)
        broken[1, 2] = value
        assert own_error(FEATURES[name], broken) == (
            f"{argument_of(name)} row 1 holds NaN or infinity"
        )
    assert f"{argument_of(name)} is on the device meta" in own_error(
        lambda: FEATURES[name](EYE.to("meta"))
    )


@pytest.mark.parametrize("function", [normalize, lambda v: cosine(v, v)])
def test_a_narrow_dtype_is_named_with_the_way_out(function: Callable[[Tensor], Tensor]) -> None:
    message = own_error(function, EYE.to(torch.float8_e4m3fn))
    assert "must have a floating dtype, got torch.float8_e4m3fn; .float() makes it" in message


@pytest.mark.parametrize("which", ["exclude", "candidates", "subsets", "targets"])
def test_what_are_no_indices_are_named(which: str) -> None:
    def call(value: Any) -> Any:
        if which == "candidates":
            return retrieval.search(EYE, EYE, 1, candidates=value)
        return retrieval.search_targets(EYE, EYE, k=1, **{"targets": IDS, which: value})

    wrong: list[Any] = [
        "a",
        1,
        [0, 1, 2],
        IDS.int().numpy(),
        IDS.numpy() + 9,
        {0},
        IDS.double(),
        IDS.bool(),
        IDS.int(),
    ]
    wrong += [IDS[:2], IDS[0], IDS + 1, IDS - 2, IDS.to("meta"), IDS.unsqueeze(1).to_sparse()]
    for value in wrong:
        assert own_error(call, value).startswith(which), value


@pytest.mark.parametrize("metric", ["recall_at_k", "median_rank", "hits_at_k"])
def test_what_are_no_ranks_are_named(metric: str) -> None:
    more = () if metric == "median_rank" else (1,)
    wrong: list[Any] = [None, [1, 2], np.array([1, 2]), "12", torch.tensor([1.0, math.nan])]
    wrong += [torch.tensor([True]), torch.tensor([1j]), torch.tensor(1), torch.tensor([[1]])]
    wrong += [torch.tensor([0, 1]), torch.tensor([2, -2]), torch.tensor([1]).to("meta")]
    for value in wrong:
        message = own_error(getattr(retrieval, metric), value, *more)
        assert message.startswith("ranks "), value


@pytest.mark.parametrize(
    ("ranked", "targets", "named"),
    [
        ([["a"], ["b"]], "ab", "targets"),
        ("ab", ["a", "b"], "ranked"),
        (["ab", "cd"], ["a", "b"], "ranked[0]"),
        ([{"a"}, {"b"}], ["a", "b"], "ranked[0]"),
        ([["a"], ["b"]], {"a", "b"}, "targets"),
        ([["a"], ["b"]], iter("ab"), "targets"),
        ([["a"], ["b"]], {"a": 1, "b": 2}, "targets"),
        ([[1], [2]], ["1", "2"], "ranked[0]"),
        ([["1"], ["2"]], [1, 2], "targets"),
        (None, ["a"], "ranked"),
        ([["a"]], None, "targets"),
        (torch.ones(2, 2), torch.ones(2).long(), "ranked"),
        (torch.ones(2, 2).long(), torch.ones(2), "targets"),
        (torch.ones(2, 2).bool(), torch.ones(2).bool(), "ranked"),
        (torch.ones(2, 2).long(), torch.ones(2).long().to("meta"), "ranked is cpu and targets"),
    ],
)
def test_what_is_no_ranking_is_named(ranked: Any, targets: Any, named: str) -> None:
    assert own_error(retrieval.target_rank, ranked, targets).startswith(named)


def test_rows_and_names_of_cached_features_are_checked() -> None:
    for side, call in (("image", CACHED.encode_image), ("text", CACHED.encode_text)):
        wrong: list[Any] = ["ab", b"ab", {"a"}, {"a": 1}, iter("a"), None, 3, [0], [["a"]]]
        wrong += [[None], np.array([0, 1]), torch.tensor([-1]), torch.tensor([3]), torch.tensor(0)]
        wrong += [torch.tensor([0.0]), torch.tensor([True]), torch.tensor([[0]])]
        for value in wrong:
            assert side in own_error(call, value), value
        names = "abc" if side == "image" else "xyz"
        given: list[Any] = [
            tuple(names),
            np.array(list(names)),
            np.array(list(names), dtype=object),
        ]
        for value in given:
            assert torch.equal(call(value), EYE)

"""One contract for every fusion of the package."""

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from raising import own_error
from small_fusions import BY_SIMILARITY, DIM, MAKE, TEXT_DIM
from torch import Tensor, nn
from toy import assert_same

import fusecomp as fc
from fusecomp import fusions
from fusecomp._core.identity import settings

# A row of negative numbers alone gets no gradient through the ReLU that they begin with.
RELU_FIRST = ("Concat", "TIRG")
# By the width of the texts that a fusion takes.
BAD: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {
    "unequal rows": lambda width: (torch.ones(2, DIM), torch.ones(3, width)),
    "another width of texts": lambda width: (torch.ones(2, DIM), torch.ones(2, width + 1)),
    "another width of images": lambda width: (torch.ones(2, DIM + 1), torch.ones(2, width)),
    "one vector": lambda width: (torch.ones(DIM), torch.ones(width)),
    "three axes": lambda width: (torch.ones(2, 1, DIM), torch.ones(2, 1, width)),
    "unequal ranks": lambda width: (torch.ones(2, DIM), torch.ones(width)),
    "unequal dtypes": lambda width: (torch.ones(2, DIM), torch.ones(2, width).double()),
    "no rows": lambda width: (torch.ones(0, DIM), torch.ones(0, width)),
    "no columns": lambda width: (torch.ones(2, 0), torch.ones(2, 0)),
    "integers": lambda width: (torch.ones(2, DIM).long(), torch.ones(2, width).long()),
    "complex numbers": lambda width: (torch.ones(2, DIM) * 1j, torch.ones(2, width) * 1j),
    "eight bits": lambda width: (eight_bits(DIM), eight_bits(width)),
    "sparse": lambda width: (torch.eye(DIM).to_sparse(), torch.ones(DIM, width).to_sparse()),
    "sparse rows": lambda width: (torch.eye(DIM), torch.ones(DIM, width).to_sparse()),
    "unequal devices": lambda width: (torch.ones(2, DIM), torch.ones(2, width, device="meta")),
}

# Both show a graph break; the second one traces gradients too, which takes thrice the time.
BACKENDS = ("eager", pytest.param("aot_eager", marks=pytest.mark.heavy))
every_fusion = pytest.mark.parametrize("name", MAKE)
by_cosine = pytest.mark.parametrize("name", [name for name in MAKE if name not in BY_SIMILARITY])
by_similarity = pytest.mark.parametrize("name", BY_SIMILARITY)
rows_and_dtypes = pytest.mark.parametrize(
    ("rows", "dtype", "tolerance"),
    [
        (rows, dtype, tolerance)
        for rows in (1, 4)
        for dtype, tolerance in (
            (torch.float32, 1e-6),
            (torch.bfloat16, 2e-2),
            (torch.float64, 1e-12),
        )
    ],
    ids=str,
)


def eight_bits(width: int) -> Tensor:
    return torch.ones(2, width).to(torch.float8_e4m3fn)


def make(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MAKE[name]().eval()


def text_width(name: str) -> int:
    return TEXT_DIM if name.endswith("two widths") else DIM


def features(name: str, rows: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image, text = (
        torch.randn(rows, width, generator=generator).to(dtype) for width in (DIM, text_width(name))
    )
    return image.requires_grad_(), text.requires_grad_()


def test_every_fusion_is_held_to_the_contract() -> None:
    assert {name.partition(",")[0] for name in MAKE} == set(fusions.__all__)


def test_every_file_of_a_fusion_is_public() -> None:
    found = set()
    for info in pkgutil.iter_modules(fusions.__path__, "fusecomp.fusions."):
        for name, value in vars(importlib.import_module(info.name)).items():
            own = inspect.isclass(value) and value.__module__ == info.name
            call = getattr(value, "forward", value)
            if own and {"image", "text"} <= {*inspect.signature(call).parameters}:
                found.add(name)
    assert found == set(fusions.__all__)


@pytest.mark.parametrize("name", fusions.__all__)
def test_every_fusion_is_written_down(name: str) -> None:
    parts = ("Reference:", "Shape:", "Raises:", "Example:")
    assert [part for part in parts if part not in getattr(fusions, name).__doc__] == []
    root = Path(__file__).parents[2]
    assert f"| `{name}` |" in (root / "docs/fusions.md").read_text("utf-8")
    assert name in (root / "CHANGELOG.md").read_text("utf-8")


def test_the_fusions_with_a_similarity_are_held_to_its_contract_too() -> None:
    assert [name for name in MAKE if "similarity" in dir(make(name))] == BY_SIMILARITY


@by_cosine
@rows_and_dtypes
def test_shape_and_dtype_stay_and_the_length_is_one(
    name: str, rows: int, dtype: torch.dtype, tolerance: float
) -> None:
    image, text = features(name, rows, dtype)
    query = make(name).to(dtype)(image, text)
    assert query.shape == (rows, DIM)
    assert query.dtype == dtype
    lengths = query.double().norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=tolerance)


@every_fusion
def test_gradients_reach_both_inputs_and_every_weight(name: str) -> None:
    module, (image, text) = make(name), features(name, 16)
    query = module(image, text)
    (query * torch.randn(query.shape)).sum().backward()
    for tensor in (image, text):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any(dim=0).all()
        assert tensor.grad.any(dim=1).all() or name.partition(",")[0] in RELU_FIRST
    for weight in module.parameters():
        assert weight.grad is not None
        assert weight.grad.any()


@every_fusion
def test_a_row_knows_nothing_of_the_rows_around_it(name: str) -> None:
    module, (image, text) = make(name), features(name, 8)
    query, order = module(image, text), torch.randperm(8)
    torch.testing.assert_close(module(image[order], text[order]), query[order])
    torch.testing.assert_close(module(image[3:4], text[3:4]), query[3:4])


@every_fusion
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_without_a_graph_break_it_is_the_same(name: str, backend: str) -> None:
    module, (image, text) = make(name), features(name)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(image, text), module(image, text))


@every_fusion
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    module, (image, text) = make(name).double(), features(name, 2, torch.float64)
    assert torch.autograd.gradcheck(module, (image, text))


@every_fusion
def test_the_state_dict_holds_all_of_it(name: str) -> None:
    first, second = make(name, seed=0), make(name, seed=1)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*features(name)), second(*features(name)))


@every_fusion
def test_evaluation_changes_nothing_and_training_counts(name: str) -> None:
    module = make(name)
    before = {n: tensor.clone() for n, tensor in module.state_dict().items()}
    module(*features(name))
    assert_same(dict(module.state_dict()), before)
    module.train()(*features(name))
    normed = {n for n, m in module.named_modules() if isinstance(m, nn.BatchNorm1d)}
    counted = {n for n, tensor in module.state_dict().items() if not torch.equal(tensor, before[n])}
    assert {n.rpartition(".")[0] for n in counted} == normed


@pytest.mark.parametrize("name", [n for n in MAKE if "BatchNorm" in str(make(n))])
def test_a_single_row_has_no_statistics_to_learn_from(name: str) -> None:
    message = own_error(make(name).train(), *features(name, 1))
    assert f"{name.partition(',')[0]} has BatchNorm, which needs 2 rows at least" in message


@pytest.mark.filterwarnings("ignore:CIRPLANT takes text_tokens")  # bare features have none
@every_fusion
def test_a_saved_one_is_rebuilt_from_its_arguments(name: str, tmp_path: Path) -> None:
    ids, texts = ["a", "b"], ["is red", "is blue"]
    image, text = (side.detach() for side in features(name, 2))
    encoder = fc.CachedEncoder.from_arrays(ids, image, texts, text)
    model = fc.ComposedEncoder(encoder, make(name))
    model.save(tmp_path / "model")
    back = fc.ComposedEncoder.load(tmp_path / "model", encoder)
    assert repr(back.fusion) == repr(model.fusion)
    assert settings(back.fusion, "") == settings(model.fusion, "")
    assert torch.equal(back.fusion(image, text), model.fusion(image, text))
    assert torch.equal(back.encode_query(ids, texts), model.encode_query(ids, texts))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["arguments"].keys() == inspect.signature(type(make(name))).parameters.keys() - {
        *("args", "kwargs")
    }


@every_fusion
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_refused(name: str, bad: str) -> None:
    message = own_error(make(name), *BAD[bad](text_width(name)))
    assert "image" in message or "text" in message


@pytest.mark.parametrize("name", [n for n in MAKE if list(make(n).parameters())])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_features_of_another_dtype_than_the_weights_are_named(
    name: str, dtype: torch.dtype
) -> None:
    module, pair = make(name), features(name, 4, dtype)
    message = own_error(module, *pair)
    assert f"weights are torch.float32 and image is {dtype}: bring both to one dtype" in message
    if dtype == torch.bfloat16:
        with torch.autocast("cpu", dtype=dtype):
            assert module(*pair).isfinite().all()


@every_fusion
@pytest.mark.parametrize(
    ("given", "way_out"),
    [(np.ones((2, DIM), "f4"), "torch.from_numpy"), ([[1.0] * DIM] * 2, "torch.tensor")],
    ids=["numpy", "list"],
)
def test_what_is_no_tensor_is_named_with_the_way_out(name: str, given: Any, way_out: str) -> None:
    module, (image, text) = make(name), features(name, 2)
    for inputs, wrong in (((given, text), "image"), ((image, given), "text")):
        with pytest.raises(TypeError, match=rf"{wrong} must be a torch tensor.*{way_out}\("):
            module(*inputs)


@every_fusion
def test_a_gpu_gives_the_same(name: str, cuda: torch.device) -> None:
    module, (image, text) = make(name).double(), features(name, 16, torch.float64)
    here = module(image, text)
    there = module.to(cuda)(image.to(cuda), text.to(cuda))
    torch.testing.assert_close(there.cpu(), here)


def similarity_of(module: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    similarity: Any = module.similarity
    return similarity  # type: ignore[no-any-return]


def queries_and_targets(
    name: str, dtype: torch.dtype = torch.float64
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]:
    """A fusion's similarity, four queries that it made, and seven targets of any length."""
    module = make(name).to(dtype)
    query = module(*(side.detach() for side in features(name, 4, dtype)))
    generator = torch.Generator().manual_seed(2)
    target = 3 * torch.randn(7, DIM, generator=generator).to(dtype)
    return similarity_of(module), query.detach().requires_grad_(), target.requires_grad_()


@by_similarity
@rows_and_dtypes
def test_queries_of_a_similarity_keep_dtype_and_one_width(
    name: str, rows: int, dtype: torch.dtype, tolerance: float
) -> None:
    module, (image, text) = make(name).to(dtype), features(name, rows, dtype)
    query = module(image, text)
    assert query.dtype == dtype
    assert query.shape == (rows, module(*features(name, 2, dtype)).shape[1])
    target = torch.randn(5, DIM).to(dtype)
    scores = similarity_of(module)(query, target)
    assert scores.shape == (rows, 5)
    assert scores.dtype == torch.promote_types(dtype, torch.float32)
    wide = make(name).double()
    query = wide(image.double(), text.double())
    expected = similarity_of(wide)(query, target.double())
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=10 * tolerance)


@by_similarity
def test_a_score_depends_on_its_pair_alone(name: str) -> None:
    similarity, query, target = queries_and_targets(name)
    scores, order = similarity(query, target), torch.randperm(7)
    near: dict[str, Any] = {"rtol": 0, "atol": 1e-13}
    torch.testing.assert_close(similarity(query, target[order]), scores[:, order], **near)
    torch.testing.assert_close(similarity(query[1:2], target), scores[1:2], **near)
    torch.testing.assert_close(similarity(query, target[4:6]), scores[:, 4:6], **near)


@by_similarity
def test_a_similarity_has_no_weights(name: str) -> None:
    similarity, query, target = queries_and_targets(name)
    module, scores = make(name, seed=1).double(), similarity(query, target)
    before = {n: tensor.clone() for n, tensor in module.state_dict().items()}
    again = similarity_of(module)(query, target)
    assert torch.equal(again, scores)
    again.sum().backward()
    assert all(weight.grad is None for weight in module.parameters())
    assert_same(dict(module.state_dict()), before)


@by_similarity
def test_gradients_of_a_similarity_are_those_of_finite_differences(name: str) -> None:
    similarity, query, target = queries_and_targets(name)
    assert torch.autograd.gradcheck(similarity, (query, target))


@by_similarity
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_target_of_zeros_scores_zero(name: str, dtype: torch.dtype) -> None:
    similarity, query, target = queries_and_targets(name, dtype)
    target = (target * torch.tensor([1, 0, 1, 1, 1, 1, 0])[:, None]).detach().requires_grad_()
    scores = similarity(query, target)
    assert scores[:, [1, 6]].tolist() == [[0, 0]] * 4
    assert scores[:, [0, 2, 3, 4, 5]].all()
    scores.sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()
    assert target.grad is not None
    assert target.grad.isfinite().all()
    assert not target.grad[[1, 6]].any()


@by_similarity
def test_a_compiled_similarity_is_the_same(name: str) -> None:
    similarity, query, target = queries_and_targets(name)
    torch._dynamo.reset()
    compiled = torch.compile(similarity, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(query, target), similarity(query, target))


@by_similarity
def test_autocast_leaves_a_similarity_as_it_is(name: str) -> None:
    similarity, query, target = queries_and_targets(name, torch.float32)
    expected = similarity(query, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(similarity(query, target), expected)


@by_similarity
@pytest.mark.parametrize(
    "bend",
    [
        lambda rows: rows[0],
        lambda rows: rows[:, :-1],
        lambda rows: rows[:0],
        lambda rows: rows[None],
        lambda rows: rows.long(),
        lambda rows: rows.float(),
        lambda rows: rows.to("meta"),
        lambda rows: rows.detach().numpy(),
        lambda rows: rows.tolist(),
    ],
)
def test_a_similarity_refuses_bad_input(name: str, bend: Callable[[Tensor], Any]) -> None:
    similarity, query, target = queries_and_targets(name)
    assert "query" in own_error(similarity, bend(query), target)
    assert "target" in own_error(similarity, query, bend(target))


@by_similarity
def test_a_gpu_gives_the_same_scores(name: str, cuda: torch.device) -> None:
    similarity, query, target = queries_and_targets(name)
    there = similarity(query.to(cuda), target.to(cuda))
    torch.testing.assert_close(there.cpu(), similarity(query, target))

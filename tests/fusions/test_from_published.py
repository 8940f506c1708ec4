"""Published state dicts: what is taken, in which form, and what is refused."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from golden import Golden
from raising import own_error
from torch import Tensor, nn

from fusecomp import fusions

Weights = dict[str, Any]


def of_combiner() -> Weights:
    torch.manual_seed(0)
    return dict(fusions.Combiner(4, projection_dim=3, hidden_dim=5).state_dict())


# By class: weights under their published names.
WEIGHTS: dict[str, Callable[[], Weights]] = {
    "ARTEMIS": lambda: Golden("artemis").below("w/"),
    "CIRPLANT": lambda: Golden("cirplant").below("w/"),
    "Combiner": of_combiner,
    "Concat": lambda: Golden("concat").below("w/"),
    "ConvexGate": lambda: Golden("dqu").below("w/"),
    "MUTAN": lambda: Golden("mutan").below("w/"),
    "RTIC": lambda: Golden("rtic").below("w/"),
    "TIRG": lambda: Golden("tirg").below("w/"),
}
# How the weights begin that belong to the loss or the encoder.
ELSEWHERE = {
    "ARTEMIS": ("temperature",),
    "CIRPLANT": (
        "normalization_layer.norm_s",
        "imageBert.bert.img_embedding.",
        "imageBert.bert.LayerNorm.",
        "imageBert.bert.pooler.",
        "imageBert.bert.embeddings.word_embeddings.",
        "imageBert.bert.embeddings.token_type_embeddings.",
    ),
    "Concat": ("normalization_layer.norm_s",),
    "ConvexGate": ("loss_weight",),
    "TIRG": ("normalization_layer.norm_s",),
}
every_class = pytest.mark.parametrize("name", WEIGHTS)


def build(name: str, weights: Weights, **options: object) -> Any:
    return vars(fusions)[name].from_published(weights, **options)


def changed(name: str, change: Callable[[Tensor], object]) -> Iterator[tuple[str, Weights]]:
    """Yield each weight's name, and all weights with this one changed."""
    weights = WEIGHTS[name]()
    for weight, tensor in weights.items():
        if not weight.startswith(ELSEWHERE.get(name, ("nothing",))):
            yield weight, weights | {weight: change(tensor)}


def test_every_fusion_with_layers_can_be_built_of_published_weights() -> None:
    known = {n for n in fusions.__all__ if "from_published" in vars(vars(fusions)[n])}
    assert known == set(WEIGHTS)


@every_class
def test_sizes_are_those_of_the_weights(name: str) -> None:
    fusion = build(name, WEIGHTS[name]()).eval()
    dtype = next(fusion.parameters()).dtype
    text_dim = vars(fusion).get("text_dim", fusion.dim)
    query = fusion(torch.ones(2, fusion.dim, dtype=dtype), torch.ones(2, text_dim, dtype=dtype))
    assert query.shape == (2, 4 * fusion.dim if name == "ARTEMIS" else fusion.dim)
    widths = {"CIRPLANT": (24, 24), "Combiner": (4, 4), "MUTAN": (12, 10)}
    assert (fusion.dim, text_dim) == widths.get(name, (16, 16))
    if name == "CIRPLANT":
        assert (fusion.layers, fusion.heads, fusion.hidden_dim, fusion.max_tokens) == (
            2,
            12,
            40,
            12,
        )
    if name == "RTIC":
        assert fusion.blocks == 2
    if name == "MUTAN":
        assert (fusion.rank, fusion.width) == (3, 12)


@every_class
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_weights_keep_their_dtype_and_are_copied(name: str, dtype: torch.dtype) -> None:
    weights = {n: t.to(dtype) if t.is_floating_point() else t for n, t in WEIGHTS[name]().items()}
    before = {n: t.clone() for n, t in weights.items()}
    fusion = build(name, weights)
    assert {weight.dtype for weight in fusion.parameters()} == {dtype}
    with torch.no_grad():
        for weight in fusion.parameters():
            weight += 1
    assert all(torch.equal(weights[n], before[n]) for n in weights)


@every_class
def test_building_draws_no_random_number(name: str) -> None:
    weights = WEIGHTS[name]()
    before = torch.get_rng_state()
    assert build(name, weights).training
    assert torch.equal(torch.get_rng_state(), before)


@every_class
@pytest.mark.parametrize("prefix", ["module.", "module.module.", "_orig_mod.module."])
def test_wrappers_before_every_name_are_left_out(name: str, prefix: str) -> None:
    weights = WEIGHTS[name]()
    plain, wrapped = build(name, weights), build(name, {prefix + n: t for n, t in weights.items()})
    for one, other in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(one, other)
    some = dict(weights)
    first = next(iter(some))
    some[f"{prefix}{first}"] = some.pop(first)
    assert "these are no complete weights" in own_error(build, name, some)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_belongs_to_the_loss_or_the_encoder_may_be_there_or_not(name: str) -> None:
    weights = WEIGHTS[name]()
    names = (n + "weight" if n.endswith(".") else n for n in ELSEWHERE[name])
    with_it = weights | {n: torch.ones(1) for n in names}
    without = {n: t for n, t in weights.items() if not n.startswith(ELSEWHERE[name])}
    for one, other in zip(
        build(name, with_it).parameters(), build(name, without).parameters(), strict=True
    ):
        assert torch.equal(one, other)
    longer = {n.rstrip(".") + "s": torch.ones(1) for n in ELSEWHERE[name]}
    assert "unknown" in own_error(build, name, weights | longer)


@every_class
def test_a_missing_weight_is_named(name: str) -> None:
    for weight, weights in changed(name, lambda tensor: tensor):
        del weights[weight]
        message = own_error(build, name, weights)
        assert message.startswith("these are no complete weights of a published")
        assert repr(weight) in message


@every_class
def test_an_unknown_weight_is_named(name: str) -> None:
    message = own_error(build, name, WEIGHTS[name]() | {"img_model.conv1.weight": torch.ones(1)})
    assert message.endswith("unknown 'img_model.conv1.weight'")
    many = {f"img_model.{number}": torch.ones(1) for number in range(5)}
    assert own_error(build, name, WEIGHTS[name]() | many).endswith("'img_model.2' and 2 more")


BENT: dict[str, Callable[[Tensor], object]] = {
    "shape": lambda weight: torch.ones(*weight.shape, 2),
    "no rows": lambda weight: weight[:0] if weight.ndim else torch.ones(0),
    "a text": lambda weight: "weights",
    "a list": Tensor.tolist,
    "sparse": lambda weight: (weight if weight.ndim else weight[None]).to_sparse(),
    "meta": lambda weight: weight.to("meta"),
}


@every_class
@pytest.mark.parametrize("bend", BENT)
def test_another_kind_of_weight_is_refused(name: str, bend: str) -> None:
    # Each weight is one of another shape; any one weight can be of another kind.
    for _, weights in islice(changed(name, BENT[bend]), None if bend == "shape" else 1):
        assert "these are no complete weights of a published" in own_error(build, name, weights)


@every_class
def test_weights_with_nan_are_named(name: str) -> None:
    for weight, weights in changed(name, lambda tensor: tensor * torch.nan):
        if WEIGHTS[name]()[weight].is_floating_point():
            assert f"{weight!r} holds NaN" in own_error(build, name, weights)


@every_class
def test_sizes_that_no_memory_holds_are_refused_before_anything_is_made(name: str) -> None:
    weights = {
        n: torch.ones(1, 1).expand(2**20, 2**20) if t.ndim == 2 else t
        for n, t in WEIGHTS[name]().items()
    }
    assert "these are no complete weights" in own_error(build, name, weights)


@every_class
@pytest.mark.parametrize("weights", [None, 3, "combiner.pt", [torch.ones(1)], {}, {1: 2}])
def test_what_is_no_state_dict_is_refused(name: str, weights: object) -> None:
    assert "weights" in own_error(build, name, weights)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("ARTEMIS", "terms", ["IS"]),
        ("CIRPLANT", "dropout", 0.25),
        ("Combiner", "dropout", 0.25),
        ("Concat", "dropout", 0.25),
        ("ConvexGate", "dropout", 0.25),
        ("MUTAN", "normalize", True),
        ("RTIC", "negative_slope", 0.2),
    ],
)
def test_what_shapes_cannot_tell_is_a_keyword(name: str, option: str, value: object) -> None:
    make: Callable[..., nn.Module] = vars(fusions)[name]
    given = build(name, WEIGHTS[name](), **{option: value})
    default = build(name, WEIGHTS[name]())
    assert vars(given)[option] == value
    assert vars(default)[option] == vars(make(8))[option]


def test_the_heads_of_cirplant_are_a_keyword_and_divide_its_width() -> None:
    assert build("CIRPLANT", WEIGHTS["CIRPLANT"](), heads=3).heads == 3
    message = own_error(build, "CIRPLANT", WEIGHTS["CIRPLANT"](), heads=5)
    assert message.endswith("published CIRPLANT: heads must divide dim=24, got 5")


def test_artemis_needs_the_weights_of_its_terms_alone() -> None:
    weights = WEIGHTS["ARTEMIS"]()
    for term, other in (("EM", "IS"), ("IS", "EM")):
        needed = {n: t for n, t in weights.items() if f"Attention_{other}" not in n}
        if term == "IS":
            needed = {n: t for n, t in needed.items() if "Transform" not in n}
        one, all_given = (
            build("ARTEMIS", needed, terms=[term]),
            build("ARTEMIS", weights, terms=[term]),
        )
        for mine, theirs in zip(one.parameters(), all_given.parameters(), strict=True):
            assert torch.equal(mine, theirs)
        assert "missing" in own_error(build, "ARTEMIS", needed)

"""The composed encoder: queries, gallery, files."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composing import TEXTS, cached, combiner, live, load
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import own_error, shown_id
from torch import Tensor, nn

from fusecomp._core.similarity import normalize
from fusecomp.encoders import DualEncoder
from fusecomp.fusions import Combiner, Sum
from fusecomp.images._loading import ImageError
from fusecomp.model import ComposedEncoder
from fusecomp.types import Batch


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.txt" for name in "abc"]
    for number, path in enumerate(paths):
        path.write_text(f"{number} {number - 1} 2")
    return paths


def expected_query(model: ComposedEncoder, images: Tensor, texts: list[str]) -> Tensor:
    model.eval()
    with torch.no_grad():
        image, text = model.encoder.encode_image(images), model.encoder.encode_text(texts)
        query = model.fusion(image, text)
    model.train()
    unit: Tensor = query / query.norm(dim=1, keepdim=True)
    return unit


def test_queries_from_loaded_images_and_from_files_are_the_same(images: list[Path]) -> None:
    model = ComposedEncoder(live(), combiner())
    loaded = torch.stack([load(path) for path in images])
    expected = expected_query(model, loaded, TEXTS)
    torch.testing.assert_close(model.encode_query(loaded, TEXTS), expected)
    torch.testing.assert_close(model.encode_query(images, TEXTS), expected)
    torch.testing.assert_close(model.encode_query([str(path) for path in images], TEXTS), expected)


def test_queries_from_ids() -> None:
    encoder = cached()
    query = ComposedEncoder(encoder, Sum()).encode_query(["c", "a"], ["has dots", "is red"])
    total = encoder.encode_image(["c", "a"]) + encoder.encode_text(["has dots", "is red"])
    torch.testing.assert_close(query, total / total.norm(dim=1, keepdim=True))


def test_many_queries_equal_each_alone() -> None:
    model = ComposedEncoder(live(), combiner())
    images, texts = torch.randn(300, 3), [f"text {number}" for number in range(300)]
    query = model.encode_query(images, texts)
    assert query.shape == (300, 4)
    for row in (0, 127, 128, 299):
        torch.testing.assert_close(
            query[row : row + 1], model.encode_query(images[row : row + 1], [texts[row]])
        )


def test_the_gallery_is_image_features_of_unit_length(images: list[Path]) -> None:
    encoder = live()
    model = ComposedEncoder(encoder, Sum())
    gallery = model.encode_gallery(images)
    encoder.eval()
    expected = normalize(encoder.encode_image(torch.stack([load(path) for path in images])))
    torch.testing.assert_close(gallery, expected.detach())
    torch.testing.assert_close(
        ComposedEncoder(cached(), Sum()).encode_gallery(["b"]).norm(), torch.tensor(1.0)
    )


def test_queries_are_evaluated_without_gradients_and_modes_come_back(
    images: list[Path],
) -> None:
    encoder, fusion = live(), combiner()
    model = ComposedEncoder(encoder, fusion).train()
    fusion.relu_dropout.eval()
    before = [module.training for module in model.modules()]
    for result in (model.encode_query(images, TEXTS), model.encode_gallery(images)):
        assert not result.requires_grad
    assert torch.equal(model.encode_query(images, TEXTS), model.encode_query(images, TEXTS))
    assert [module.training for module in model.modules()] == before
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        model.encode_query(["none.png"], ["is red"])
    assert [module.training for module in model.modules()] == before


def test_a_lambda_is_a_fusion_and_gets_unit_length() -> None:
    encoder = cached()
    model = ComposedEncoder(encoder, lambda image, text: 7 * image - text)
    query = model.encode_query(["a"], ["is red"])
    raw = 7 * encoder.encode_image(["a"]) - encoder.encode_text(["is red"])
    torch.testing.assert_close(query, normalize(raw))


@pytest.mark.parametrize(
    "fusion",
    [
        lambda image, text: torch.cat((image, text), dim=1),
        lambda image, text: image[0],
        lambda image, text: (image * text).sum(),
    ],
)
def test_a_fusion_of_another_shape_is_refused(fusion: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = ComposedEncoder(cached(), fusion)
    with pytest.raises(ValueError, match=r"the fusion returned .* for features \[1, 4\]"):
        model.encode_query(["a"], ["is red"])


def test_the_features_of_several_texts_are_averaged() -> None:
    image, text = torch.randn(3, 4), torch.randn(6, 4, requires_grad=True)
    model = ComposedEncoder(cached(), Sum())
    query = model.compose(image, text, torch.tensor([2, 1, 3]))
    means = [text[:2].mean(0), text[2], text[3:].mean(0)]
    torch.testing.assert_close(query, normalize(image + torch.stack(means)))
    query.sum().backward()
    assert text.grad is not None
    assert text.grad.any(dim=1).all()
    one_each = model.compose(image, text[:3], torch.ones(3, dtype=torch.int64))
    assert torch.equal(one_each, model.compose(image, text[:3]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_features_are_fused_in_float32(dtype: torch.dtype) -> None:
    image, text = torch.randn(2, 3, 4).to(dtype)
    query = ComposedEncoder(cached(), Sum()).compose(image, text)
    assert query.dtype == torch.float32
    torch.testing.assert_close(query, normalize(image.float() + text.float()))


def test_forward_learns() -> None:
    model = ComposedEncoder(live(), combiner())
    model(torch.randn(3, 3), TEXTS).square()[:, 0].sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


# What does not fit


def test_references_and_texts_are_equally_many() -> None:
    with pytest.raises(ValueError, match="1 references but 2 texts"):
        ComposedEncoder(cached(), Sum()).encode_query(["a"], ["is red", "has dots"])


def test_a_single_string_is_no_list_of_texts() -> None:
    with pytest.raises(ValueError, match="texts must be a list of strings, got the string 'is"):
        ComposedEncoder(cached(), Sum()).encode_query(["a", "b", "c", "a", "b", "c"], "is red")


@pytest.mark.parametrize("images", ["a", Path("a.png"), []])
def test_images_are_a_list(images: Any) -> None:
    with pytest.raises(
        ValueError, match=r"images must be a list of paths, ids or images, got the str|non-empty"
    ):
        ComposedEncoder(cached(), Sum()).encode_gallery(images)


@pytest.mark.parametrize("references", [[], torch.empty(0, 3)], ids=["list", "tensor"])
def test_no_queries_at_all_are_refused(references: Any) -> None:
    with pytest.raises(ValueError, match="empty"):
        ComposedEncoder(live(), Sum()).encode_query(references, [])


def test_a_string_that_is_no_file_is_named(images: list[Path]) -> None:
    with pytest.raises(FileNotFoundError, match="1 of 2 images are missing, the first: B009"):
        ComposedEncoder(live(), Sum()).encode_query([images[0], "B009"], ["is red", "is red"])


def test_a_string_that_is_no_id_is_named() -> None:
    with pytest.raises(ValueError, match=r"no cached features for the image 'z\.png'"):
        ComposedEncoder(cached(), Sum()).encode_query(["z.png"], ["is red"])
    with pytest.raises(ValueError, match="for the text 'is blue'"):
        ComposedEncoder(cached(), Sum()).encode_query(["a"], ["is blue"])


def test_files_need_an_encoder_that_loads_them(images: list[Path]) -> None:
    with pytest.raises(ValueError, match="DualEncoder neither loads files nor looks ids up"):
        ComposedEncoder(live(load=None), Sum()).encode_query(images, TEXTS)


def test_a_broken_image_is_named(images: list[Path]) -> None:
    images[1].write_text("no numbers")
    with pytest.raises(ImageError, match=r"cannot read the image .*b.txt"):
        ComposedEncoder(live(), Sum()).encode_query(images, TEXTS)


def test_images_of_two_shapes_are_named(images: list[Path]) -> None:
    images[1].write_text("1 2")
    with pytest.raises(ValueError, match=r"b.txt has shape \[2\] and .*a.txt \[3\]"):
        ComposedEncoder(live(), Sum()).encode_query(images, TEXTS)


def test_an_encoder_has_both_methods_and_a_fusion_can_be_called() -> None:
    with pytest.raises(TypeError, match="encoder must be an encoder with encode_image, got Linear"):
        ComposedEncoder(nn.Linear(2, 2), Sum())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="fusion must be callable, got str"):
        ComposedEncoder(cached(), "sum")  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["image", "text"])
def test_an_encoder_that_returns_something_else_is_named(side: str, images: list[Path]) -> None:
    def other(change: Callable[[Tensor], Any]) -> ComposedEncoder:
        sides: dict[str, Any] = {"image": lambda p: p, "text": lambda t: torch.ones(len(t), 3)}
        whole = sides[side]
        sides[side] = lambda inputs: change(whole(inputs))
        return ComposedEncoder(DualEncoder(**sides, load_image=load), Sum())

    loaded = torch.stack([load(path) for path in images])
    for references in (images, loaded):
        other(lambda features: features).encode_query(references, TEXTS)
        message = rf"the {side} side must return a tensor \[B, D\], got ndarray"
        with pytest.raises(TypeError, match=message):
            other(lambda features: features.numpy()).encode_query(references, TEXTS)
        for change, shape in ((lambda f: f[0], [3]), (lambda f: f[:2], [2, 3])):
            message = f"encode_{side} returned {shape} for 3 inputs, expected [3, D]"
            with pytest.raises(ValueError, match=re.escape(message)):
                other(change).encode_query(references, TEXTS)


def test_features_take_the_dtype_of_the_fusions_weights() -> None:
    """numpy's features are float64 by habit."""
    image, text = torch.randn(2, 3, 4, dtype=torch.float64)
    model = ComposedEncoder(cached(), Combiner(4).eval())
    expected = model.compose(image.float(), text.float())
    assert torch.equal(model.compose(image, text), expected)
    assert ComposedEncoder(cached(), Sum()).compose(image, text).dtype == torch.float64
    assert ComposedEncoder(cached(), Combiner(4).double()).compose(image, text).dtype == image.dtype


def test_a_class_in_place_of_an_instance_is_named() -> None:
    with pytest.raises(TypeError, match="fusion is the class Combiner: pass an instance"):
        ComposedEncoder(cached(), Combiner)  # type: ignore[arg-type]


def test_more_texts_than_images_need_counts() -> None:
    with pytest.raises(ValueError, match="2 images but 3 texts: where a row has several texts"):
        ComposedEncoder(cached(), Sum()).compose(torch.ones(2, 4), torch.ones(3, 4))


@pytest.mark.parametrize("references", ["a", Path("a.png")])
def test_a_single_image_is_no_list_of_references(references: Any) -> None:
    with pytest.raises(ValueError, match=r"references must be a list of .*, got the string 'a"):
        ComposedEncoder(cached(), Sum()).encode_query(references, ["is red"])


@st.composite
def counts_of_texts(draw: st.DrawFn) -> tuple[int, int, list[int]]:
    """A number of rows, of texts, and counts that mostly do not fit them."""
    rows, texts = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    return rows, texts, draw(st.lists(st.integers(-1, 4), min_size=0, max_size=5))


@settings(max_examples=200)
@given(counts_of_texts())
def test_counts_of_texts_fit_rows_and_texts_or_are_named(case: tuple[int, int, list[int]]) -> None:
    rows, texts, counts = case
    model = ComposedEncoder(cached(), Sum())
    image, text = torch.randn(rows, 4), torch.randn(texts, 4)
    given_counts = torch.tensor(counts, dtype=torch.int64)
    if len(counts) == rows and sum(counts) == texts and min(counts) >= 1:
        means = torch.stack([part.mean(0) for part in text.split(counts)])
        expected = normalize(image + means)
        torch.testing.assert_close(model.compose(image, text, given_counts), expected)
        return
    message = own_error(model.compose, image, text, given_counts)
    assert message.startswith("text_counts ")
    ids = torch.zeros(rows, dtype=torch.int64)
    names = [f"q{row}" for row in range(rows)]
    batch_message = own_error(Batch, ids, text, ids, given_counts, ids, ids, names)
    assert batch_message.startswith("text_counts ")


@pytest.mark.parametrize(
    "counts",
    [
        [1, 1],
        (1, 1),
        "11",
        torch.tensor([1.0, 1.0]),
        torch.tensor([True, True]),
        torch.tensor([1, 1], dtype=torch.int32),
        torch.tensor([[1], [1]]),
        torch.tensor(2),
        torch.tensor([1, 1]).to("meta"),
    ],
    ids=shown_id,
)
def test_counts_of_another_kind_are_named(counts: Any) -> None:
    image, text = torch.randn(2, 2, 4)
    message = own_error(ComposedEncoder(cached(), Sum()).compose, image, text, counts)
    assert message.startswith("text_counts ")


class Shelf(list[str]):
    """Another list."""


@pytest.mark.parametrize("make", [list, tuple, np.array, Shelf], ids=lambda make: make.__name__)
def test_references_and_texts_may_be_in_any_list(make: Any) -> None:
    model = ComposedEncoder(cached(), Sum())
    expected = model.encode_query(["b", "a"], ["is red", "has dots"])
    assert torch.equal(model.encode_query(make(["b", "a"]), make(["is red", "has dots"])), expected)
    assert torch.equal(model.encode_gallery(make(["b", "a"])), model.encode_gallery(["b", "a"]))


@pytest.mark.parametrize(
    "values",
    [
        *(None, 3, b"a", {"a"}, {"a": 1}, iter("a"), (name for name in "a"), map(str, "a")),
        *([3], [None], [b"a"], [{"a"}], [torch.ones(3)], np.array([["a"]]), np.array("a")),
    ],
    ids=shown_id,
)
def test_what_is_no_list_of_paths_or_texts_is_named(values: Any) -> None:
    model = ComposedEncoder(cached(), Sum())
    assert own_error(model.encode_query, ["a"], values).startswith("texts")
    assert own_error(model.encode_query, values, ["is red"]).startswith(
        ("references must be a list of ", "images must be a list of ids, ")
    )
    assert own_error(model.encode_gallery, values).startswith("images must be a list of ")


@pytest.mark.parametrize("texts", [[["is red", "has dots"]], [("is red",)]])
def test_several_texts_of_a_row_are_refused_with_the_way_out(texts: Any) -> None:
    message = own_error(ComposedEncoder(cached(), Sum()).encode_query, ["a"], texts)
    assert message.startswith(f"texts[0] is {texts[0]!r}, but a query takes one text: ")
    assert "text_counts" in message
    assert "Triplet" in message


@settings(max_examples=30)
@given(st.integers(0, 299), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_a_query_or_image_that_is_not_finite_is_named(row: int, value: float) -> None:
    model = ComposedEncoder(live(), Sum())
    images, texts = torch.zeros(300, 3), [f"is {number}" for number in range(300)]
    images[row, 1] = value
    assert own_error(model.encode_query, images, texts).startswith(
        f"query {row} (a loaded image with 'is {row}') holds NaN or infinity"
    )
    assert own_error(model.encode_gallery, images).startswith(
        f"image {row} (a loaded image) has features with NaN or infinity"
    )


def test_a_query_that_a_fusion_breaks_names_its_reference_and_text() -> None:
    def broken(image: Tensor, text: Tensor) -> Tensor:
        return torch.where(torch.arange(len(image))[:, None] == 1, torch.nan, image)

    message = own_error(
        ComposedEncoder(cached(), broken).encode_query, ["a", "b"], ["is red", "has dots"]
    )
    assert message.startswith("query 1 ('b' with 'has dots') holds NaN or infinity; check the ")


@pytest.mark.parametrize("result", [None, 1.0, "query", [[1.0] * 4], np.ones((1, 4), "f4")])
def test_a_fusion_that_returns_no_tensor_is_named(result: Any) -> None:
    model = ComposedEncoder(cached(), lambda image, text: result)
    message = own_error(model.encode_query, ["a"], ["is red"])
    assert message.startswith("what the fusion returns must be a torch tensor, got ")


def test_a_row_of_the_gallery_is_no_reference() -> None:
    """It has lost the length that the fusion takes into account: another query comes out."""
    encoder = cached()
    model = ComposedEncoder(encoder, Sum())
    text = encoder.encode_text(["is red"])
    expected = model.encode_query(["a"], ["is red"])
    torch.testing.assert_close(model.compose(encoder.encode_image(["a"]), text), expected)
    assert (model.compose(model.encode_gallery(["a"]), text) - expected).abs().max() > 0.05

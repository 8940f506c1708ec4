"""Every encoder takes a list of strings, and nothing that is mistaken for one."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_open_clip, make_tokenizer, make_transformers
from torch import Tensor, nn

from fusecomp.encoders import (
    DualEncoder,
    OpenClipEncoder,
    SentenceTransformersText,
    TransformersEncoder,
)
from fusecomp.encoders._tokenizing import list_of_texts

Encode = Callable[[Any], Tensor]
KINDS = ("open_clip", "transformers", "sentence", "dual", "dual-tower")
MISTAKES: list[tuple[Any, str]] = [
    ("is red", r"got the string 'is red'; write \['is red'\]"),
    ("", r"got the string ''; write \[''\]"),
    (b"is red", "got the bytes b'is red'"),
    ([["is red"], ["is blue"]], r"texts\[0\] is \['is red'\]"),
    (["is red", ("is", "blue")], r"texts\[1\] is \('is', 'blue'\)"),
    (["is red", b"is blue"], r"texts\[1\] is b'is blue'"),
    (["is red", None], r"texts\[1\] is None"),
    (["is red", 3], r"texts\[1\] is 3"),
    (["is red", float("nan")], r"texts\[1\] is nan"),
    (np.array([["is red"]]), "got the ndarray"),
    ({"is red", "is blue"}, "got the set"),
    ({"is red": "a"}, "got the dict"),
    (iter(["is red"]), "got the list_iterator"),
    (3, "got the int 3"),
    (None, "got the NoneType None"),
    ([], "texts must hold at least one string"),
    ((), "texts must hold at least one string"),
    (np.array([], dtype=str), "texts must hold at least one string"),
]


def lengths(texts: list[str]) -> Tensor:
    return torch.tensor([[float(len(text))] for text in texts])


@pytest.fixture(scope="module", params=KINDS)
def encode(request: pytest.FixtureRequest) -> Encode:
    if request.param == "open_clip":
        open_clip = request.getfixturevalue("open_clip")
        return OpenClipEncoder(make_open_clip(), open_clip.get_tokenizer("RN50")).encode_text
    if request.param == "transformers":
        transformers = request.getfixturevalue("transformers")
        model = make_transformers(transformers, "clip")
        return TransformersEncoder(model, make_tokenizer(transformers)).encode_text
    if request.param == "sentence":
        return SentenceTransformersText(request.getfixturevalue("minilm"))
    dual = DualEncoder(nn.Linear(9, 1), lengths)
    if request.param == "dual":
        return dual.encode_text
    return lambda texts: dual.encode_tower("text", texts)


@pytest.mark.parametrize(("texts", "message"), MISTAKES)
def test_what_is_no_list_of_strings_is_refused(encode: Encode, texts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(texts)


@pytest.mark.parametrize("encode", ("open_clip", "transformers", "sentence"), indirect=True)
def test_tokens_are_refused_by_what_makes_tokens(encode: Encode) -> None:
    with pytest.raises(ValueError, match="texts must be a list of strings, got the Tensor"):
        encode(torch.arange(2))


def test_a_side_of_ones_own_may_take_tokens() -> None:
    tokens: Any = torch.arange(6).reshape(2, 3)
    embedding = nn.EmbeddingBag(6, 4)
    features = DualEncoder(nn.Linear(9, 4), embedding).encode_text(tokens)
    assert torch.equal(features, embedding(tokens))


TEXTS = ["is red", "is blue and sleeveless"]


@pytest.mark.parametrize("kind", [tuple, np.array])
def test_any_sequence_of_strings_is_taken(encode: Encode, kind: Callable[[Any], Any]) -> None:
    assert torch.equal(encode(kind(TEXTS)), encode(TEXTS))


@given(texts=st.lists(st.text()), stranger=st.none() | st.integers() | st.binary(), place=st.data())
def test_one_stranger_among_strings_is_found(
    texts: list[str], stranger: Any, place: st.DataObject
) -> None:
    row = place.draw(st.integers(0, len(texts)))
    with pytest.raises(ValueError, match=rf"texts\[{row}\] is {re.escape(repr(stranger)[:60])}"):
        list_of_texts([*texts[:row], stranger, *texts[row:]])


@given(texts=st.lists(st.text(), min_size=1))
def test_strings_stay_as_they_are(texts: list[str]) -> None:
    assert list_of_texts(texts) == texts


@given(st.lists(st.text(max_size=6), max_size=4), st.characters(categories=["Cs"]), st.data())
def test_half_of_a_character_is_named_with_its_text(
    texts: list[str], half: str, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, len(texts)))
    with pytest.raises(ValueError, match=rf"^texts\[{row}\] holds half of a character, such as of"):
        list_of_texts([*texts[:row], f"is {half}", *texts[row:]])

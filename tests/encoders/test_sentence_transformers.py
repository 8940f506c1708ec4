"""A real pretrained sentence encoder as the text side."""

from typing import Any

import pytest
import torch
from torch import nn

import fusecomp as fc
from fusecomp.encoders import SentenceTransformersText

TEXTS = ["is blue", "has no sleeves and a longer skirt"]


def test_features_are_those_of_the_library(minilm: Any) -> None:
    text = SentenceTransformersText(minilm)
    expected = minilm.encode(TEXTS, convert_to_tensor=True).clone()
    features = text(TEXTS)
    torch.testing.assert_close(features.detach(), expected, rtol=0, atol=1e-6)
    assert features.requires_grad
    assert text.output_dim == features.shape[1] == 384


def test_it_stands_beside_a_image_side_of_another_width(minilm: Any) -> None:
    encoder = fc.DualEncoder(
        nn.Linear(9, 16), SentenceTransformersText(minilm), image_dim=16, dim=16
    )
    assert list(encoder.heads) == ["text"]
    assert encoder.encode_text(TEXTS).shape == encoder.encode_image(torch.ones(2, 9)).shape
    assert encoder.fingerprint() == encoder.fingerprint()


def test_long_texts_are_cut_with_one_warning(minilm: Any) -> None:
    text = SentenceTransformersText(minilm)
    with pytest.warns(UserWarning, match="are cut, for example 'blue blue") as warned:
        text(["blue " * 400])
        text(["blue " * 400])
    assert len(warned) == 1


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a SentenceTransformer, got Linear"):
        SentenceTransformersText(nn.Linear(2, 2))

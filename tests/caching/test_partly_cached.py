"""One side looked up, the other live."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusecomp.caching import CachedEncoder, FeatureTable, PartlyCachedEncoder
from fusecomp.datasets import FashionIQ
from fusecomp.encoders import DualEncoder
from fusecomp.types import Encoder


def load(path: Path) -> Tensor:
    return torch.tensor(list(path.read_bytes().ljust(10))).float() / 64


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, texts: list[str]) -> Tensor:
        codes = [[ord(letter) / 64 for letter in text[:16].ljust(16)] for text in texts]
        out: Tensor = self.layer(torch.tensor(codes))
        return out


@pytest.fixture
def data(tiny_fashioniq: Path) -> FashionIQ:
    return FashionIQ(tiny_fashioniq, "val")


@pytest.fixture
def live() -> DualEncoder:
    return DualEncoder(nn.Linear(10, 4), Words(), load)


def test_the_cached_side_is_looked_up_and_the_other_learns(
    live: DualEncoder, data: FashionIQ
) -> None:
    partly = PartlyCachedEncoder.build(live, data, sides=["image"], batch_size=5)
    assert isinstance(partly, Encoder)
    assert list(partly.lookup) == ["image"]
    ids = ["Tval03", "Dval00"]
    images = torch.stack([load(data.path(image_id)) for image_id in ids])
    expected = live.encode_image(images).detach()
    features = partly.encode_image(partly.lookup["image"](ids))
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(partly.encode_image(ids), expected)
    assert not features.requires_grad
    texts = partly.encode_text(["is red", "is blue"])
    assert texts.requires_grad
    assert torch.equal(texts, live.encode_text(["is red", "is blue"]))


def test_the_text_side_may_be_the_cached_one(live: DualEncoder, data: FashionIQ) -> None:
    for image_id in data.image_ids:
        data.path(image_id).unlink()
    partly = PartlyCachedEncoder.build(live, data, sides=["text"])
    text = data.texts()[3]
    assert list(partly.lookup) == ["text"]
    torch.testing.assert_close(
        partly.encode_text(partly.lookup["text"]([text])), live.encode_text([text]).detach()
    )
    assert partly.encode_image(torch.ones(1, 10)).requires_grad
    assert partly.load_image is load


def test_both_sides_make_an_encoder_that_needs_no_images(
    live: DualEncoder, data: FashionIQ
) -> None:
    partly = PartlyCachedEncoder.build(live, data, sides=["image", "text"])
    built = CachedEncoder.build(live, data)
    assert sorted(partly.lookup) == ["image", "text"]
    assert torch.equal(partly.encode_image(["Dval00"]), built.encode_image(["Dval00"]))
    text = data.texts()[0]
    assert torch.equal(partly.encode_text([text]), built.encode_text([text]))


def test_it_shares_the_weights_behind_it(live: DualEncoder, data: FashionIQ) -> None:
    partly = PartlyCachedEncoder.build(live, data, sides=["image"])
    assert {id(p) for p in partly.parameters()} == {id(p) for p in live.parameters()}
    assert all(name.startswith("encoder.") for name in partly.state_dict())


def test_a_change_of_weights_reaches_the_live_side_only(live: DualEncoder, data: FashionIQ) -> None:
    partly = PartlyCachedEncoder.build(live, data, sides=["image"])
    image, text = partly.encode_image(["Dval00"]), partly.encode_text(["is red"])
    with torch.no_grad():
        for weight in live.parameters():
            weight.add_(1)
    assert torch.equal(partly.encode_image(["Dval00"]), image)
    assert not torch.equal(partly.encode_text(["is red"]), text)


def test_what_the_encoder_behind_looks_up_stays(live: DualEncoder, data: FashionIQ) -> None:
    built = CachedEncoder.build(live, data)
    partly = PartlyCachedEncoder.build(built, data, sides=["image"])
    assert sorted(partly.lookup) == ["image", "text"]
    text = data.texts()[:2]
    assert torch.equal(partly.encode_text(text), built.encode_text(text))


def test_an_unknown_side_is_answered_with_the_valid_ones(
    live: DualEncoder, data: FashionIQ
) -> None:
    with pytest.raises(ValueError, match=r"unknown sides \['audio'\]; valid: image, text"):
        PartlyCachedEncoder.build(live, data, sides=["image", "audio"])


def test_an_unknown_image_is_named(live: DualEncoder, data: FashionIQ) -> None:
    partly = PartlyCachedEncoder.build(live, data, sides=["image"])
    with pytest.raises(ValueError, match="no cached features for the image 'Dtrain00'"):
        partly.lookup["image"](["Dtrain00"])


@pytest.mark.parametrize("learns", [True, False])
def test_a_table_lies_below_a_learning_head_and_above_a_frozen_one(
    data: FashionIQ, learns: bool
) -> None:
    live = DualEncoder(nn.Linear(10, 6), Words(), load, image_dim=6, text_dim=4, dim=4)
    live.heads.requires_grad_(learns)
    partly = PartlyCachedEncoder.build(live, data, sides=["image"])
    assert partly.tables["image"]([data.image_ids[0]]).shape == (1, 6 if learns else 4)
    images = torch.stack([load(data.path(image_id)) for image_id in data.image_ids])
    features = partly.encode_image(data.image_ids)
    torch.testing.assert_close(features, live.encode_image(images), rtol=1e-6, atol=1e-6)
    assert features.requires_grad == learns


class Centred(nn.Module):
    """Features that depend on the batch around them; it counts the rows that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, images: Tensor) -> Tensor:
        self.rows += len(images)
        return images - images.mean(0)


def image_table(partly: PartlyCachedEncoder) -> FeatureTable:
    table = partly.tables["image"]
    assert isinstance(table, FeatureTable)
    return table


def test_what_is_known_is_not_computed_again(live: DualEncoder, tiny_fashioniq: Path) -> None:
    val, train = (FashionIQ(tiny_fashioniq, split) for split in ("val", "train"))
    centred = Centred()
    live.image = centred
    first = PartlyCachedEncoder.build(live, val, sides=["image"])
    known = {"image": image_table(first)}
    assert centred.rows == len(val.image_ids)
    again = PartlyCachedEncoder.build(live, val, sides=["image"], known=known)
    assert centred.rows == len(val.image_ids)
    both = PartlyCachedEncoder.build(live, val, train, sides=["image"], known=known)
    names = list(dict.fromkeys((*val.image_ids, *train.image_ids)))
    assert centred.rows == len(names)
    assert list(image_table(both).rows) == names
    whole = PartlyCachedEncoder.build(live, val, train, sides=["image"])
    for partly in (first, again, both):
        ids = list(image_table(partly).rows)
        assert torch.equal(partly.encode_image(ids), whole.encode_image(ids))


def test_the_datasets_behind_one_do_not_change_its_features(
    live: DualEncoder, tiny_fashioniq: Path
) -> None:
    val, train = (FashionIQ(tiny_fashioniq, split) for split in ("val", "train"))
    live.image = Centred()
    alone, first, second = (
        PartlyCachedEncoder.build(live, *datasets, sides=["image"]).encode_image(val.image_ids)
        for datasets in ([val], [val, train], [train, val])
    )
    assert torch.equal(alone, first)
    assert set(val.image_ids).isdisjoint(train.image_ids)
    assert torch.equal(alone, second)


def test_a_known_table_below_no_head_does_not_serve_a_head_that_learns(data: FashionIQ) -> None:
    live = DualEncoder(nn.Linear(10, 6), Words(), load, image_dim=6, text_dim=4, dim=4)
    live.heads.requires_grad_(False)
    known = {"image": image_table(PartlyCachedEncoder.build(live, data, sides=["image"]))}
    live.heads.requires_grad_(True)
    partly = PartlyCachedEncoder.build(live, data, sides=["image"], known=known)
    assert partly.tables["image"]([data.image_ids[0]]).shape == (1, 6)


def test_known_tables_of_another_kind_or_side_are_refused(
    live: DualEncoder, data: FashionIQ
) -> None:
    text = PartlyCachedEncoder.build(live, data, sides=["text"]).tables["text"]
    wrong: tuple[Any, ...] = (torch.eye(3), text)
    for table in wrong:
        with pytest.raises(TypeError, match=r"(?s)known must be FeatureTables.* for 'image'"):
            PartlyCachedEncoder.build(live, data, sides=["image"], known={"image": table})

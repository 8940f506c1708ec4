"""Features computed once from an encoder, with a file beside it or without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from cacheable import Words, live, load
from torch import Tensor

from fusecomp.caching import CachedEncoder
from fusecomp.datasets import FashionIQ
from fusecomp.encoders import DualEncoder
from fusecomp.images._loading import ImageError


@pytest.fixture
def data(tiny_fashioniq: Path) -> FashionIQ:
    return FashionIQ(tiny_fashioniq, "val")


def test_built_features_equal_the_encoder_s(data: FashionIQ) -> None:
    encoder = live()
    built = CachedEncoder.build(encoder, data, batch_size=7)
    assert encoder.training
    encoder.eval()
    ids, texts = data.image_ids, data.texts()
    images = torch.stack([load(data.path(image_id)) for image_id in ids])
    with torch.no_grad():
        torch.testing.assert_close(built.encode_image(ids), encoder.encode_image(images))
        torch.testing.assert_close(built.encode_text(texts), encoder.encode_text(texts))
    assert not built.encode_image(ids).requires_grad


def test_worker_processes_change_nothing(data: FashionIQ) -> None:
    one, two = (
        CachedEncoder.build(live(), data, num_workers=num_workers) for num_workers in (0, 2)
    )
    assert torch.equal(one.encode_image(data.image_ids), two.encode_image(data.image_ids))


def test_several_data_sets_share_one_cache(tiny_fashioniq: Path) -> None:
    splits = [FashionIQ(tiny_fashioniq, split) for split in ("train", "val")]
    built = CachedEncoder.build(live(), *splits, splits[0])
    for data in splits:
        assert built.encode_image(data.image_ids).shape == (36, 4)
        assert built.encode_text(data.texts()).shape == (len(data.texts()), 4)


def test_a_cache_of_a_cache_holds_the_same(data: FashionIQ) -> None:
    first = CachedEncoder.build(live(), data)
    second = CachedEncoder.build(first, FashionIQ(data.root, "val", ["shirt"]))
    assert second.image.features.shape == (12, 4)
    assert torch.equal(second.encode_image(["Sval03"]), first.encode_image(["Sval03"]))


def test_build_needs_a_data_set() -> None:
    with pytest.raises(ValueError, match="at least one dataset"):
        CachedEncoder.build(live())


def test_missing_images_are_counted_and_named(data: FashionIQ) -> None:
    for name in ("Dval03", "Tval00"):
        data.path(name).unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 36 .* missing, .*Dval03.png.*Tval00.png"):
        CachedEncoder.build(live(), data)


def test_a_broken_image_is_named(data: FashionIQ) -> None:
    data.path("Sval05").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"cannot read the image .*Sval05.png .*truncated"):
        CachedEncoder.build(live(), data)


def test_an_encoder_without_load_says_so(data: FashionIQ) -> None:
    encoder = live()
    encoder.load_image = None
    with pytest.raises(ValueError, match="DualEncoder has no load_image"):
        CachedEncoder.build(encoder, data)


def test_a_side_of_the_wrong_number_of_rows_is_named(data: FashionIQ) -> None:
    encoder = DualEncoder(lambda images: torch.ones(1, 4), Words(), load)
    with pytest.raises(ValueError, match="encode_image returned 1 rows for 36 inputs"):
        CachedEncoder.build(encoder, data)


def test_a_feature_that_is_not_finite_is_named(data: FashionIQ) -> None:
    encoder = DualEncoder(lambda images: images[:, :4] / 0, Words(), load)
    with pytest.raises(ValueError, match="the features of image 'Dval00' hold NaN or infinity"):
        CachedEncoder.build(encoder, data)


# A file beside the encoder


def test_the_second_build_reads_the_file(data: FashionIQ, tmp_path: Path) -> None:
    path = tmp_path / "new" / "features.safetensors"
    first = CachedEncoder.build(live(), data, path=path)
    for image_id in data.image_ids:
        data.path(image_id).unlink()
    encoder = live()
    with pytest.warns(UserWarning, match=r"36 of 36 images are not there, the first: 'Dval00'"):
        second = CachedEncoder.build(encoder, data, path=path)
    assert encoder.text.calls == 0  # type: ignore[attr-defined]
    assert torch.equal(second.encode_image(data.image_ids), first.encode_image(data.image_ids))
    assert second.fingerprint() == encoder.fingerprint()


def test_a_file_of_another_encoder_is_refused(data: FashionIQ, tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    CachedEncoder.build(live(seed=0), data, path=path)
    with pytest.raises(ValueError, match=f"{path} holds features under the key .* delete it"):
        CachedEncoder.build(live(seed=1), data, path=path)
    with pytest.raises(ValueError, match="but the encoder's is 'mine'"):
        CachedEncoder.build(live(seed=0), data, path=path, key="mine")


def test_a_file_of_other_data_is_refused(data: FashionIQ, tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    CachedEncoder.build(live(), FashionIQ(data.root, "val", ["dress"]), path=path)
    with pytest.raises(ValueError, match="lacks the features of 24 images, the first: 'Sval00'"):
        CachedEncoder.build(live(), data, path=path)
    other = FashionIQ(data.root, "val", ["dress"], captions="reversed")
    with pytest.raises(ValueError, match="lacks the features of 8 texts"):
        CachedEncoder.build(live(), other, path=path)


def test_an_encoder_that_cannot_name_its_state_needs_a_key(data: FashionIQ, tmp_path: Path) -> None:
    class Plain:
        load_image = staticmethod(load)

        def encode_image(self, images: Any) -> Tensor:
            return torch.ones(len(images), 4)

        encode_text = encode_image

    path = tmp_path / "features.safetensors"
    for encoder in (Plain(), DualEncoder(len, len, load)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="key"):
            CachedEncoder.build(encoder, data, path=path)
    assert CachedEncoder.build(Plain(), data, path=path, key="v1").fingerprint() == "v1"
    assert CachedEncoder.build(Plain(), data).image.features.shape == (36, 4)

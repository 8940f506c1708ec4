"""Features computed once: from arrays, from an encoder, from files good and bad."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusecomp.data import FashionIQ
from fusecomp.encoders import CachedEncoder, DualEncoder
from fusecomp.loading import PictureError
from fusecomp.protocols import Encoder

IDS, TEXTS = ["a", "b", "größer"], ["is red", "", "has dots"]
IMAGES = np.arange(12, dtype=np.float32).reshape(3, 4)
WORDS = np.arange(12, 24, dtype=np.float32).reshape(3, 4)


def cached(dtype: Any = np.float32, key: str = "key") -> CachedEncoder:
    return CachedEncoder.from_arrays(IDS, IMAGES.astype(dtype), TEXTS, WORDS.astype(dtype), key)


# An encoder over the tiny data set, whose pictures hold their own ids as bytes.


def load(path: Path) -> Tensor:
    content = path.read_bytes()
    if content == b"broken":
        raise OSError("image file is truncated")
    return torch.tensor(list(content.ljust(10))).float() / 64


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4)
        self.calls = 0

    def forward(self, texts: list[str]) -> Tensor:
        self.calls += 1
        codes = [[ord(letter) / 64 for letter in text[:16].ljust(16)] for text in texts]
        return torch.tanh(self.layer(torch.tensor(codes)))


def live(seed: int = 0) -> DualEncoder:
    torch.manual_seed(seed)
    return DualEncoder(nn.Sequential(nn.Linear(10, 4), nn.Dropout(0.5)), Words(), load)


@pytest.fixture
def data(tiny_fashioniq: Path) -> FashionIQ:
    return FashionIQ(tiny_fashioniq, "val")


# From arrays


def test_features_are_found_by_name_and_by_row() -> None:
    encoder = cached()
    assert isinstance(encoder, Encoder)
    rows = encoder.lookup["image"](["größer", "a", "a"])
    assert rows.tolist() == [2, 0, 0]
    assert rows.dtype == torch.int64
    expected = torch.from_numpy(IMAGES[[2, 0, 0]])
    assert torch.equal(encoder.encode_image(rows), expected)
    assert torch.equal(encoder.encode_image(["größer", "a", "a"]), expected)
    assert torch.equal(encoder.encode_text(["", "is red"]), torch.from_numpy(WORDS[[1, 0]]))
    assert torch.equal(
        encoder.encode_text(encoder.lookup["text"]([""])), torch.from_numpy(WORDS[1:2])
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_features_come_out_in_float32_at_least(given: torch.dtype, expected: torch.dtype) -> None:
    images, texts = torch.from_numpy(IMAGES).to(given), torch.from_numpy(WORDS).to(given)
    encoder = CachedEncoder.from_arrays(IDS, images, TEXTS, texts)
    assert encoder.encode_image(IDS).dtype == encoder.encode_text(TEXTS).dtype == expected
    assert torch.equal(encoder.encode_image(IDS).float(), torch.from_numpy(IMAGES))


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(ValueError, match=r"no cached features for the image 'z' \(of 3 cached\)"):
        cached().lookup["image"](["a", "z"])
    with pytest.raises(ValueError, match="for the text 'is blue'"):
        cached().encode_text(["is blue"])


def nan(features: NDArray[Any], value: float = np.nan) -> NDArray[Any]:
    features = features.copy()
    features[2, 1] = value
    return features


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_ids": ["a", "b"]}, "2 image names but 3 rows of features"),
        ({"texts": ["a", "b", "c", "d"]}, "4 text names but 3 rows"),
        ({"image_ids": ["a", "b", "a"]}, "the image 'a' occurs twice"),
        ({"texts": ["", "x", ""]}, "the text '' occurs twice"),
        ({"images": nan(IMAGES)}, "the features of image 'größer' hold NaN or infinity"),
        ({"text_features": nan(WORDS, np.inf)}, "of text 'has dots' hold NaN or infinity"),
        ({"images": np.ones((3, 5), "f4")}, "image features have width 5, text features 4"),
        ({"images": IMAGES.astype(int)}, r"image features must be floating \[N, D\]"),
        ({"images": IMAGES[0]}, r"got torch.float32 \[4\]"),
        ({"image_ids": [], "images": IMAGES[:0]}, "not empty"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    good = {"image_ids": IDS, "images": IMAGES, "texts": TEXTS, "text_features": WORDS}
    with pytest.raises(ValueError, match=message):
        CachedEncoder.from_arrays(**{**good, **arguments})


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((1, 0, 2, 3), "image names must be a list of strings, got ndarray of ndarray"),
        ((0, 2, 1, 3), "image features must be an array, got list"),
        ((0, 1, 3, 2), "text names must be a list of strings, got Tensor of Tensor"),
    ],
)
def test_swapped_arguments_are_named_with_their_order(order: list[int], message: str) -> None:
    arguments: list[Any] = [IDS, IMAGES, TEXTS, torch.from_numpy(WORDS)]
    with pytest.raises(TypeError, match=f"{message}; from_arrays takes image_ids, images, texts"):
        CachedEncoder.from_arrays(*(arguments[position] for position in order))


@pytest.mark.parametrize(
    ("names", "message"), [("abc", "got str of str"), ([1, "b", 2], "got list of int")]
)
def test_names_are_a_list_of_strings(names: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"image names must be a list of strings, {message};"):
        CachedEncoder.from_arrays(names, IMAGES, TEXTS, WORDS)


def test_names_and_features_may_be_any_sequence_of_strings_and_numbers() -> None:
    encoder = CachedEncoder.from_arrays(np.array(IDS), IMAGES.tolist(), tuple(TEXTS), WORDS)  # type: ignore[arg-type]
    assert torch.equal(encoder.encode_image(IDS), torch.from_numpy(IMAGES))


def test_features_are_no_weights() -> None:
    assert cached().state_dict() == {}
    assert list(cached().parameters()) == []


def test_the_key_is_the_fingerprint() -> None:
    assert cached(key="clip").fingerprint() == "clip"
    with pytest.raises(ValueError, match="no key"):
        cached(key="").fingerprint()


# From an encoder


def test_built_features_equal_the_encoder_s(data: FashionIQ) -> None:
    encoder = live()
    built = CachedEncoder.build(encoder, data, batch_size=7)
    assert encoder.training
    encoder.eval()
    ids, texts = data.image_ids, data.texts()
    pictures = torch.stack([load(data.path(image_id)) for image_id in ids])
    with torch.no_grad():
        torch.testing.assert_close(built.encode_image(ids), encoder.encode_image(pictures))
        torch.testing.assert_close(built.encode_text(texts), encoder.encode_text(texts))
    assert not built.encode_image(ids).requires_grad


def test_worker_processes_change_nothing(data: FashionIQ) -> None:
    one, two = (CachedEncoder.build(live(), data, workers=workers) for workers in (0, 2))
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


def test_missing_pictures_are_counted_and_named(data: FashionIQ) -> None:
    for name in ("Dval03", "Tval00"):
        data.path(name).unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 36 .* missing, .*Dval03.png.*Tval00.png"):
        CachedEncoder.build(live(), data)


def test_a_broken_picture_is_named(data: FashionIQ) -> None:
    data.path("Sval05").write_bytes(b"broken")
    with pytest.raises(PictureError, match=r"cannot read the picture .*Sval05.png .*truncated"):
        CachedEncoder.build(live(), data)


def test_an_encoder_without_load_says_so(data: FashionIQ) -> None:
    encoder = live()
    encoder.load = None
    with pytest.raises(ValueError, match="DualEncoder has no load"):
        CachedEncoder.build(encoder, data)


def test_a_side_of_the_wrong_number_of_rows_is_named(data: FashionIQ) -> None:
    encoder = DualEncoder(lambda pictures: torch.ones(1, 4), Words(), load)
    with pytest.raises(ValueError, match="encode_image returned 1 rows for 36 inputs"):
        CachedEncoder.build(encoder, data)


def test_a_feature_that_is_not_finite_is_named(data: FashionIQ) -> None:
    encoder = DualEncoder(lambda pictures: pictures[:, :4] / 0, Words(), load)
    with pytest.raises(ValueError, match="the features of image 'Dval00' hold NaN or infinity"):
        CachedEncoder.build(encoder, data)


# A file beside the encoder


def test_the_second_build_reads_the_file(data: FashionIQ, tmp_path: Path) -> None:
    path = tmp_path / "new" / "features.safetensors"
    first = CachedEncoder.build(live(), data, path=path)
    for image_id in data.image_ids:
        data.path(image_id).unlink()
    encoder = live()
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
        load = staticmethod(load)

        def encode_image(self, images: Any) -> Tensor:
            return torch.ones(len(images), 4)

        encode_text = encode_image

    path = tmp_path / "features.safetensors"
    for encoder in (Plain(), DualEncoder(len, len, load)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="key"):
            CachedEncoder.build(encoder, data, path=path)
    assert CachedEncoder.build(Plain(), data, path=path, key="v1").fingerprint() == "v1"
    assert CachedEncoder.build(Plain(), data).image.features.shape == (36, 4)


# Files


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_file_gives_back_what_was_saved(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "features.safetensors"
    encoder = cached(dtype)
    encoder.save(path)
    back = CachedEncoder.load(path)
    assert back.fingerprint() == "key"
    assert back.image.features.numpy().dtype == dtype
    assert torch.equal(back.encode_image(IDS), encoder.encode_image(IDS))
    assert torch.equal(back.encode_text(TEXTS), encoder.encode_text(TEXTS))


def test_bfloat16_features_survive_a_file(tmp_path: Path) -> None:
    images, texts = (torch.from_numpy(x).bfloat16() for x in (IMAGES, WORDS))
    CachedEncoder.from_arrays(IDS, images, TEXTS, texts).save(tmp_path / "f.safetensors")
    back = CachedEncoder.load(tmp_path / "f.safetensors")
    assert torch.equal(back.encode_image(IDS), torch.from_numpy(IMAGES))


def test_a_file_is_mapped_and_never_changed(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    cached().save(path)
    before = path.read_bytes()
    back = CachedEncoder.load(path)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(path) in maps.read_text()
    back.image.features.zero_()
    assert path.read_bytes() == before
    assert torch.equal(CachedEncoder.load(path).encode_image(IDS), torch.from_numpy(IMAGES))


def test_saving_over_the_file_that_is_mapped_keeps_the_features(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    cached().save(path)
    back = CachedEncoder.load(path)
    back.save(path)
    assert torch.equal(back.encode_image(IDS), torch.from_numpy(IMAGES))
    assert torch.equal(CachedEncoder.load(path).encode_image(IDS), torch.from_numpy(IMAGES))


@pytest.fixture
def safetensors_numpy() -> Any:
    return pytest.importorskip("safetensors.numpy", reason="compares with the safetensors library")


def test_the_safetensors_library_reads_our_file(tmp_path: Path, safetensors_numpy: Any) -> None:
    path = tmp_path / "features.safetensors"
    cached(np.float16).save(path)
    arrays = safetensors_numpy.load_file(path)
    np.testing.assert_array_equal(arrays["image_features"], IMAGES.astype(np.float16))
    np.testing.assert_array_equal(arrays["text_features"], WORDS.astype(np.float16))
    assert json.loads(arrays["image_ids"].tobytes()) == IDS
    assert json.loads(arrays["texts"].tobytes()) == TEXTS


@pytest.mark.parametrize("dtypes", [(np.float32, np.float32), (np.float16, np.float64)])
def test_we_read_the_safetensors_library_s_file(
    tmp_path: Path, safetensors_numpy: Any, dtypes: tuple[Any, Any]
) -> None:
    arrays = {
        "image_features": IMAGES.astype(dtypes[0]),
        "text_features": WORDS.astype(dtypes[1]),
        "image_ids": np.frombuffer(json.dumps(IDS).encode(), np.uint8),
        "texts": np.frombuffer(json.dumps(TEXTS).encode(), np.uint8),
    }
    path = tmp_path / "features.safetensors"
    metadata = {"format": "fusecomp.features/1", "key": "theirs"}
    safetensors_numpy.save_file(arrays, path, metadata)
    encoder = CachedEncoder.load(path)
    assert encoder.fingerprint() == "theirs"
    assert torch.equal(encoder.encode_image(IDS).float(), torch.from_numpy(IMAGES))
    assert torch.equal(encoder.encode_text(TEXTS).float(), torch.from_numpy(WORDS))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no feature file .*none\.safetensors"):
        CachedEncoder.load(tmp_path / "none.safetensors")


def test_a_torn_file_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    cached().save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=f"{path} is torn or no feature file .* build it again"
        ):
            CachedEncoder.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="is torn"):
        CachedEncoder.load(path)


def test_a_torn_file_is_not_mistaken_for_a_cache(data: FashionIQ, tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    CachedEncoder.build(live(), data, path=path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is torn or no feature file"):
        CachedEncoder.build(live(), data, path=path)


Header = dict[str, Any]


def entry(name: str, **values: Any) -> Callable[[Header], Any]:
    return lambda header: header[name].update(values)


HOSTILE: dict[str, Callable[[Header], Any]] = {
    "negative start": entry("image_features", data_offsets=[-48, 0]),
    "negative shape": entry("image_features", shape=[-3, -4]),
    "start after end": entry("image_features", data_offsets=[48, 0]),
    "end beyond the file": entry("image_features", data_offsets=[0, 10**15], shape=[10**14, 4]),
    "wrong shape": entry("image_features", shape=[3, 5]),
    "fractional shape": entry("image_features", shape=[3.0, 4.0]),
    "huge empty shape": entry("image_features", data_offsets=[0, 0], shape=[0, 10**30]),
    "three axes": entry("image_features", shape=[3, 2, 2]),
    "no shape": entry("image_features", shape=None),
    "unknown dtype": entry("image_features", dtype="I64"),
    "dtype of another kind": entry("image_features", dtype=[]),
    "offsets of another kind": entry("image_features", data_offsets=["0", "48"]),
    "no offsets": entry("image_features", data_offsets=[]),
    "features as bytes": entry("image_features", dtype="U8", shape=[3, 16]),
    "names as numbers": entry("image_ids", dtype="F16", shape=[9]),
    "names of features": entry("texts", data_offsets=[0, 48], shape=[48]),
    "no texts": lambda header: header.pop("texts"),
    "no metadata": lambda header: header.pop("__metadata__"),
    "metadata of another kind": lambda header: header.update(__metadata__=[]),
    "another format": lambda header: header["__metadata__"].update(format="pt"),
}


def with_header(whole: bytes, header: bytes) -> bytes:
    start = 8 + int.from_bytes(whole[:8], "little")
    return len(header).to_bytes(8, "little") + header + whole[start:]


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_hostile_header_is_refused(tmp_path: Path, trick: str) -> None:
    path = tmp_path / "features.safetensors"
    cached().save(path)
    whole = path.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    HOSTILE[trick](header)
    path.write_bytes(with_header(whole, json.dumps(header).encode()))
    with pytest.raises(ValueError, match=f"{path}"):
        CachedEncoder.load(path)


@pytest.mark.parametrize(
    "header",
    [b"[]", b"null", b"{}", b"\xff\xff", b"not json", b"[" * 100_000],
    ids=["list", "null", "empty", "not UTF-8", "not JSON", "endless nesting"],
)
def test_a_header_of_something_else_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "features.safetensors"
    cached().save(path)
    path.write_bytes(with_header(path.read_bytes(), header))
    with pytest.raises(ValueError, match=f"{path} is torn or no feature file"):
        CachedEncoder.load(path)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**9, 0])
def test_a_header_of_absurd_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "features.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}      ")
    with pytest.raises(ValueError, match=f"{path} is torn or no feature file"):
        CachedEncoder.load(path)


@pytest.mark.parametrize(
    "names", ['["a", "b"]', '["a", "a", "b"]', '["a", "b", 3]', '{"a": 1}', "["]
)
def test_names_that_do_not_fit_are_refused(tmp_path: Path, names: str) -> None:
    path = tmp_path / "features.safetensors"
    cached().save(path)
    whole = path.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    start, end = header["image_ids"]["data_offsets"]
    start, end = (8 + int.from_bytes(whole[:8], "little") + offset for offset in (start, end))
    path.write_bytes(whole[:start] + names.encode().ljust(end - start) + whole[end:])
    with pytest.raises(ValueError, match=f"{path}"):
        CachedEncoder.load(path)

"""The feature file: read back, mapped, read by others, and refused where it is torn or hostile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cacheable import IDS, IMAGES, TEXTS, WORDS, cached, live
from safetensors import numpy as safetensors_numpy

from fusecomp.caching import CachedEncoder
from fusecomp.datasets import FashionIQ


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


def test_the_safetensors_library_reads_our_file(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    cached(np.float16).save(path)
    arrays = safetensors_numpy.load_file(path)
    np.testing.assert_array_equal(arrays["image_features"], IMAGES.astype(np.float16))
    np.testing.assert_array_equal(arrays["text_features"], WORDS.astype(np.float16))
    assert json.loads(arrays["image_ids"].tobytes()) == IDS
    assert json.loads(arrays["texts"].tobytes()) == TEXTS


@pytest.mark.parametrize("dtypes", [(np.float32, np.float32), (np.float16, np.float64)])
def test_we_read_the_safetensors_library_s_file(tmp_path: Path, dtypes: tuple[Any, Any]) -> None:
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


def test_a_torn_file_is_not_mistaken_for_a_cache(tiny_fashioniq: Path, tmp_path: Path) -> None:
    data, path = FashionIQ(tiny_fashioniq, "val"), tmp_path / "features.safetensors"
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
    "the other side's bytes": entry("image_features", data_offsets=[48, 96]),
    "a gap": entry("texts", data_offsets=[140, 163]),
    "bytes of nobody": lambda header: header.update(
        more={"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    ),
    "offsets as fractions": entry("image_features", data_offsets=[0.0, 48.0]),
    "a shape of truth": entry("texts", shape=[True, 28]),
    "key of another kind": lambda header: header["__metadata__"].update(key=3),
    "skipped without reasons": lambda header: header["__metadata__"].update(skipped='{"z": 1}'),
    "no texts": lambda header: header.pop("texts"),
    "no metadata": lambda header: header.pop("__metadata__"),
    "metadata of another kind": lambda header: header.update(__metadata__=[]),
    "another format": lambda header: header["__metadata__"].update(format="pt"),
}


def with_header(whole: bytes, header: bytes) -> bytes:
    start = 8 + int.from_bytes(whole[:8], "little")
    return len(header).to_bytes(8, "little") + header + whole[start:]


def saved(path: Path, form: str) -> tuple[bytes, Header]:
    """The bytes of a file of three images and texts, and its header; format 1 has no checksum."""
    cached().save(path)
    whole = path.read_bytes()
    header: Header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    about = header["__metadata__"]
    about["format"] = f"fusecomp.features/{form}"
    if form == "1":
        del about["checksum"], about["tensor_checksums"]
    return whole, header


@pytest.mark.parametrize("form", ["1", "3"])
@pytest.mark.parametrize("trick", HOSTILE)
def test_a_hostile_header_is_refused(tmp_path: Path, trick: str, form: str) -> None:
    path = tmp_path / "features.safetensors"
    whole, header = saved(path, form)
    path.write_bytes(with_header(whole, json.dumps(header).encode()))
    assert CachedEncoder.load(path).fingerprint() == "key"
    HOSTILE[trick](header)
    path.write_bytes(with_header(whole, json.dumps(header).encode()))
    with pytest.raises(ValueError, match=f"{path}"):
        CachedEncoder.load(path)


@pytest.mark.parametrize("form", ["1", "3"])
def test_a_field_that_stands_twice_is_named(tmp_path: Path, form: str) -> None:
    path = tmp_path / "features.safetensors"
    whole, header = saved(path, form)
    text = json.dumps(header).replace('"key": "key"', '"key": "other", "key": "key"')
    path.write_bytes(with_header(whole, text.encode()))
    with pytest.raises(ValueError, match=f"{path} is torn .*the field 'key' occurs twice"):
        CachedEncoder.load(path)


def test_another_key_or_image_that_was_skipped_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    for field, value in (
        ("key", "other"),
        ("skipped", '{"z": "gone"}'),
        ("tensor_checksums", "{}"),
    ):
        whole, header = saved(path, "3")
        header["__metadata__"][field] = value
        path.write_bytes(with_header(whole, json.dumps(header).encode()))
        with pytest.raises(ValueError, match=f"{path} is torn .*its header is not that of its"):
            CachedEncoder.load(path)


def test_a_name_that_was_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    whole, _ = saved(path, "3")
    path.write_bytes(whole.replace(b'["a", "b"', b'["c", "b"'))
    with pytest.raises(ValueError, match=f"{path} is torn .*its image_ids are not those of their"):
        CachedEncoder.load(path)


def test_features_that_were_changed_are_noticed_when_they_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    whole, header = saved(path, "3")
    before = CachedEncoder.load(path, check=True).encode_image(["a"])
    changed = bytearray(whole)
    changed[
        8 + int.from_bytes(whole[:8], "little") + header["image_features"]["data_offsets"][0]
    ] = 1
    path.write_bytes(changed)
    assert not torch.equal(CachedEncoder.load(path).encode_image(["a"]), before)
    with pytest.raises(ValueError, match=f"{path} is torn .*its image_features are not those of"):
        CachedEncoder.load(path, check=True)


def test_values_are_looked_at_when_written_and_not_when_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "features.safetensors"
    encoder = cached()
    encoder.save(path)
    with monkeypatch.context() as patch:
        patch.setattr("fusecomp.caching._feature_table.non_finite_rows", None)
        CachedEncoder.load(path)
    encoder.text.features[1, 2] = torch.nan
    with pytest.raises(ValueError, match=f"the features of text '{TEXTS[1]}' hold NaN or infinity"):
        encoder.save(path)
    assert torch.equal(CachedEncoder.load(path).encode_text(TEXTS), torch.from_numpy(WORDS))


@pytest.mark.parametrize("check", [False, True])
def test_nan_of_another_program_is_named(tmp_path: Path, check: bool) -> None:
    path = tmp_path / "features.safetensors"
    whole, header = saved(path, "1")
    start = 8 + int.from_bytes(whole[:8], "little") + header["image_features"]["data_offsets"][0]
    changed = whole[:start] + np.float32(np.nan).tobytes() + whole[start + 4 :]
    path.write_bytes(with_header(changed, json.dumps(header).encode()))
    reason = "has no checksum" if check else "the features of image 'a' hold NaN or infinity"
    with pytest.raises(ValueError, match=f"{path} is torn or no feature file .*{reason}"):
        CachedEncoder.load(path, check=check)


def test_a_file_without_checksums_cannot_be_checked(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    whole, header = saved(path, "1")
    path.write_bytes(with_header(whole, json.dumps(header).encode()))
    assert torch.equal(CachedEncoder.load(path).encode_image(IDS), torch.from_numpy(IMAGES))
    with pytest.raises(ValueError, match=f"{path} .*'fusecomp.features/1' has no checksum"):
        CachedEncoder.load(path, check=True)


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


@pytest.mark.parametrize("form", ["1", "3"])
@pytest.mark.parametrize(
    "names", ['["a", "b"]', '["a", "a", "b"]', '["a", "b", 3]', '{"a": 1}', "["]
)
def test_names_that_do_not_fit_are_refused(tmp_path: Path, names: str, form: str) -> None:
    path = tmp_path / "features.safetensors"
    whole, header = saved(path, form)
    whole = with_header(whole, json.dumps(header).encode())
    start, end = header["image_ids"]["data_offsets"]
    start, end = (8 + int.from_bytes(whole[:8], "little") + offset for offset in (start, end))
    path.write_bytes(whole[:start] + names.encode().ljust(end - start) + whole[end:])
    with pytest.raises(ValueError, match=f"{path}"):
        CachedEncoder.load(path)

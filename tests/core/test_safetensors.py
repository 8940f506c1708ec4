"""The safetensors layout: every dtype and shape, changed bytes, and the library itself."""

from pathlib import Path

import pytest
import torch
from raising import own_error
from safetensors.torch import load_file, save_file
from torch import Tensor

from fusecomp._core.files import reading
from fusecomp._core.safetensors import read_safetensors, write_safetensors

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64]
DTYPES += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
DTYPES += [torch.float8_e4m3fn, torch.float8_e5m2]
LIBRARY = [dtype for dtype in DTYPES if dtype != torch.complex64]  # which old versions lack


def tensors(dtypes: list[torch.dtype]) -> dict[str, Tensor]:
    """Of each dtype a matrix, a number, nothing, and rows that are not one after another."""
    found: dict[str, Tensor] = {}
    for dtype in dtypes:
        whole = torch.arange(12).reshape(3, 4).to(dtype)
        parts = {"matrix": whole, "number": whole[1, 1], "nothing": whole[:0], "columns": whole.T}
        found |= {f"{dtype} {name}": part for name, part in parts.items()}
    return found


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tolist() == other.tolist()


def test_all_comes_back(tmp_path: Path) -> None:
    path, content = tmp_path / "new" / "a.safetensors", tensors(DTYPES)
    known = write_safetensors(path, content, {"about": "größer\udce9"})
    about, found, checksum = read_safetensors(path)
    assert (about, checksum) == ({"about": "größer\udce9"}, known)
    assert found.keys() == content.keys()
    assert all(same(found[name], tensor) for name, tensor in content.items())


def test_nothing_at_all_comes_back(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a", {}, {})
    assert read_safetensors(tmp_path / "a")[:2] == ({}, {})


def test_the_library_reads_ours_and_we_read_its(tmp_path: Path) -> None:
    content = {name: tensor.clone().contiguous() for name, tensor in tensors(LIBRARY).items()}
    write_safetensors(tmp_path / "ours", content, {})
    save_file(content, tmp_path / "theirs", {"format": "pt"})
    theirs = read_safetensors(tmp_path / "theirs")
    assert (theirs.about, theirs.checksum) == ({"format": "pt"}, None)
    for found in (load_file(tmp_path / "ours"), theirs.tensors):
        assert found.keys() == content.keys()
        assert all(same(found[name], tensor) for name, tensor in content.items())


def test_every_changed_byte_is_noticed_but_those_left_unverified(tmp_path: Path) -> None:
    path, content = tmp_path / "a", {"one": torch.ones(3), "two": torch.zeros(2)}
    write_safetensors(path, content, {"about": "it"})
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with (
            pytest.raises(ValueError, match=f"^{path} is torn"),
            reading(path, "file", "torn", "write it again"),
        ):
            if read_safetensors(path).checksum is None:
                raise ValueError("without a checksum")
        if place >= len(whole) - 8:
            assert read_safetensors(path, ["two"]).tensors["two"].any()


def test_a_dtype_that_the_layout_lacks_is_named(tmp_path: Path) -> None:
    wide = {"w": torch.ones(1, dtype=torch.complex128)}
    message = own_error(write_safetensors, tmp_path / "a", wide, {})
    assert message == "'w' is torch.complex128, which no safetensors file can hold"
    assert not (tmp_path / "a").exists()

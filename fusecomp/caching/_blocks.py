import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fusecomp._core.safetensors import read_safetensors, write_safetensors
from fusecomp.distributed import gather_objects


class Block(NamedTuple):
    """Features [B, D] of the names that could be encoded, and why others could not."""

    names: Sequence[str]
    features: Tensor
    skipped: Mapping[str, str]


class Blocks:
    """Finished blocks of features, in memory and, with a folder, on disk for a later process.

    A file is named by a hash of the key and of the names whose features it holds, so that a stale
    one is never found, and processes that compute the same write the same.

    Args:
        folder: where the blocks are kept; None keeps them in memory alone.
        key: names the encoder, its settings and the side.
        marks: by name, what else must be equal, such as the size of the image's file.
    """

    def __init__(
        self, folder: Path | None, key: str, marks: Mapping[str, int] | None = None
    ) -> None:
        self._folder = folder
        self._key = key
        self._marks = marks or {}
        self._kept: dict[str, Block] = {}

    def find(self, names: Sequence[str]) -> Block | None:
        """Return the block of these names, if it is finished."""
        name = self._name(names)
        if name not in self._kept and self._folder is not None:
            block = _read(self._folder / name)
            if block is not None:
                self._kept[name] = block
        return self._kept.get(name)

    def __getitem__(self, names: Sequence[str]) -> Block:
        return self._kept[self._name(names)]

    def add(self, names: Sequence[str], block: Block) -> None:
        """Keep the block of these names."""
        name = self._name(names)
        self._kept[name] = block
        if self._folder is not None:
            _write(self._folder / name, block)

    def share(self) -> None:
        """Give every process the blocks of all."""
        for kept in gather_objects(self._kept):
            self._kept.update(kept)

    def _name(self, names: Sequence[str]) -> str:
        known = [self._key, *names, *(self._marks.get(name) for name in names)]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest() + ".safetensors"


def _write(path: Path, block: Block) -> None:
    about = {"names": json.dumps(list(block.names)), "skipped": json.dumps(dict(block.skipped))}
    # Another process may have finished the same cache just now and removed the folder.
    with suppress(FileNotFoundError):
        write_safetensors(path, {"features": block.features}, about)


def _read(path: Path) -> Block | None:
    """Return None if there is no such file or it cannot be read: then it is computed again."""
    try:
        about, tensors, checksum = read_safetensors(path)
        block = Block(json.loads(about["names"]), tensors["features"], json.loads(about["skipped"]))
    except Exception:  # a malformed header raises some of every kind
        return None
    return None if checksum is None else block

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
    """Features [B, D] of the names that could be encoded, and why others could not.

    ``tokens`` are their values [S, W], one name after another, and the number [B] that each has.
    """

    names: Sequence[str]
    features: Tensor
    skipped: Mapping[str, str]
    tokens: tuple[Tensor, Tensor] | None = None


class Blocks:
    """Finished blocks of features, in memory and, with a folder, on disk for a later process.

    A file is named by a hash of ``key`` (encoder, settings, side), of the names whose features it
    holds, and of their ``marks`` (such as the sizes of their files), so that a stale one is never
    found, and processes that compute the same write the same.
    """

    def __init__(
        self, folder: Path | None, key: str, marks: Mapping[str, int] | None = None
    ) -> None:
        self._folder = folder
        self._key = key
        self._marks = marks or {}
        self._kept: dict[str, Block] = {}

    @property
    def on_disk(self) -> bool:
        """Whether blocks are written."""
        return self._folder is not None

    def find(self, names: Sequence[str]) -> Block | None:
        """Return the block of these names, if it is finished."""
        name = self._name(names)
        if name not in self._kept and self._folder is not None:
            # A file that is not there or cannot be read is computed again; a malformed header
            # raises errors of every kind.
            with suppress(Exception):
                about, tensors, checksum = read_safetensors(self._folder / name)
                names, skipped = json.loads(about["names"]), json.loads(about["skipped"])
                if checksum is not None:
                    tokens = (
                        (tensors["tokens"], tensors["lengths"]) if "tokens" in tensors else None
                    )
                    self._kept[name] = Block(names, tensors["features"], skipped, tokens)
        return self._kept.get(name)

    def __getitem__(self, names: Sequence[str]) -> Block:
        return self._kept[self._name(names)]

    def add(self, names: Sequence[str], block: Block) -> None:
        """Keep the block of these names."""
        name = self._name(names)
        self._kept[name] = block
        if self._folder is None:
            return
        about = {"names": json.dumps(list(block.names)), "skipped": json.dumps(dict(block.skipped))}
        tensors = {"features": block.features}
        if block.tokens is not None:
            tensors |= dict(zip(("tokens", "lengths"), block.tokens, strict=True))
        # Another process may have finished the same cache just now and removed the folder.
        with suppress(FileNotFoundError):
            write_safetensors(self._folder / name, tensors, about)

    def share(self) -> None:
        """Give every process the blocks of all."""
        for kept in gather_objects(self._kept):
            self._kept.update(kept)

    def _name(self, names: Sequence[str]) -> str:
        known = [self._key, *names, *(self._marks.get(name) for name in names)]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest() + ".safetensors"

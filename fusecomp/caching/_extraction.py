"""Computing the features of every image or text of some datasets, once."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusecomp._core.abilities import encode_function, image_loader, lookups_of, tower_function
from fusecomp._core.checks import require_choice, shown, strings, whole_number
from fusecomp._core.devices import PRECISIONS, autocast, device_of, inference
from fusecomp._core.progress import progress
from fusecomp._core.randomness import repeatable
from fusecomp._core.tensors import FLOATING, check_features, non_finite_rows, widen
from fusecomp.caching._blocks import Block, Blocks
from fusecomp.caching._feature_table import FeatureTable
from fusecomp.distributed import gathered_weights, get_rank, get_world_size
from fusecomp.images import ON_ERROR, image_paths, load_available, load_images, require_files
from fusecomp.types import Dataset, Encode, Encoder

# Batches a block: what a kill costs, and what one of many processes takes at a time.
_BLOCK_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Extraction:
    """How features are computed and kept; ``CachedEncoder.build`` explains each field."""

    batch_size: int = 128
    num_workers: int | None = None
    precision: str = "fp32"
    dtype: torch.dtype | None = None
    on_error: str = "raise"

    def __post_init__(self) -> None:
        checked: dict[str, object] = {
            "batch_size": whole_number("batch_size", self.batch_size, 1),
            "precision": require_choice("precision", self.precision, PRECISIONS),
            "on_error": require_choice("on_error", self.on_error, ON_ERROR),
        }
        if self.num_workers is not None:
            checked["num_workers"] = whole_number("num_workers", self.num_workers, 0)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.dtype is not None and self.dtype not in FLOATING:
            valid = ", ".join(map(str, FLOATING))
            raise ValueError(f"dtype must be floating, one of {valid}; got {shown(self.dtype)}")


class _Inputs(NamedTuple):
    """One batch as the encoder takes it; None where no image of it could be loaded."""

    names: Sequence[str]
    inputs: Any
    skipped: dict[str, str]


def compute_table(
    encoder: Encoder,
    datasets: Sequence[Dataset],
    side: str,
    extraction: Extraction,
    *,
    finished: Blocks | None = None,
    below_head: bool = False,
) -> FeatureTable:
    """Encode one side of the datasets: every image, or every text, once.

    Many processes share the work by whole blocks; each gets the whole table.

    Args:
        encoder: in evaluation mode meanwhile.
        datasets: name what is encoded.
        side: ``"image"`` or ``"text"``.
        extraction: the settings.
        finished: keeps the blocks that are done, also for a later process.
        below_head: compute the features below the side's head.
    """
    names = names_of(datasets, side)
    if not names:
        raise ValueError(f"the datasets name no {side} to encode")
    size = extraction.batch_size * _BLOCK_BATCHES
    blocks = [names[start : start + size] for start in range(0, len(names), size)]
    finished = Blocks(None, "") if finished is None else finished
    own = blocks[get_rank() :: get_world_size()]
    remaining = [block for block in own if not _is_done(finished.find(block), extraction)]
    done = sum(map(len, own)) - sum(map(len, remaining))
    inputs = _inputs(encoder, datasets, side, remaining, done, extraction)
    with (
        gathered_weights(encoder),
        inference(encoder),
        autocast(device_of(encoder), extraction.precision),
    ):
        # Not before: gathering the weights registers the methods of a sharded encoder with FSDP2.
        encode = tower_function(encoder, side) if below_head else encode_function(encoder, side)
        encode = _repeatable(encode, device_of(encoder))
        for block in remaining:
            batches = islice(inputs, math.ceil(len(block) / extraction.batch_size))
            finished.add(block, _encode_block(encode, side, batches, extraction))
        if remaining:
            next(inputs, None)  # the bar and the workers come to their end
    finished.share()
    return _assemble(side, [finished[block] for block in blocks]).to(device_of(encoder))


def names_of(datasets: Iterable[Dataset], side: str) -> list[str]:
    """Return every image id, or every text, of some datasets, once.

    Raises:
        ValueError: if a dataset has no list of strings of them.
    """
    if side == "image":
        lists = (strings("image_ids of a dataset", data.image_ids) for data in datasets)
    else:
        lists = (strings("texts() of a dataset", data.texts()) for data in datasets)
    return list(dict.fromkeys(chain.from_iterable(lists)))


def _is_done(block: Block | None, extraction: Extraction) -> bool:
    # What an earlier process has skipped may have been repaired, or must be raised now.
    return block is not None and not (block.skipped and extraction.on_error == "raise")


def _repeatable(encode: Encode, device: torch.device) -> Callable[[_Inputs], Tensor]:
    def encode_batch(batch: _Inputs) -> Tensor:
        with repeatable(device, batch.names[0]):
            return encode(batch.inputs)

    return encode_batch


def _inputs(
    encoder: Encoder,
    datasets: Sequence[Dataset],
    side: str,
    blocks: Sequence[Sequence[str]],
    done: int,
    extraction: Extraction,
) -> Iterator[_Inputs]:
    """Yield the batches of all blocks: loading goes on while a block is written.

    What is computed, and not looked up, has a bar, which starts at ``done``.
    """
    batches = [
        list(block[start : start + extraction.batch_size])
        for block in blocks
        for start in range(0, len(block), extraction.batch_size)
    ]
    look_up = lookups_of(encoder).get(side)
    if look_up is not None:
        device = device_of(encoder)
        return (_Inputs(names, look_up(names).to(device), {}) for names in batches)
    inputs = (
        _images(encoder, datasets, batches, extraction)
        if side == "image"
        else (_Inputs(names, names, {}) for names in batches)
    )
    label, total = f"encoding {side}s", done + sum(map(len, batches))
    return progress(inputs, total, label, f"{side}s", per_item=extraction.batch_size, start=done)


def _images(
    encoder: Encoder,
    datasets: Sequence[Dataset],
    batches: Sequence[list[str]],
    extraction: Extraction,
) -> Iterator[_Inputs]:
    load_image = image_loader(encoder)
    if load_image is None:
        kind = type(encoder).__name__
        raise ValueError(f"{kind} has no load_image: give it one (path -> tensor) to read files")
    names = [image_id for batch in batches for image_id in batch]
    paths = _paths(names, image_paths(datasets))
    numbers = iter(range(len(names)))
    positions = [list(islice(numbers, len(batch))) for batch in batches]
    device = device_of(encoder)
    if extraction.on_error == "raise":
        require_files(paths)
        loads = load_images(paths, load_image, positions, extraction.num_workers, device)
        for batch, images in zip(batches, loads, strict=True):
            yield _Inputs(batch, images.to(device, non_blocking=True), {})
        return
    for loaded in load_available(paths, load_image, positions, extraction.num_workers, device):
        some = loaded.images
        yield _Inputs(
            [names[position] for position in loaded.positions],
            None if some is None else some.to(device, non_blocking=True),
            {names[position]: str(error) for position, error in loaded.failed.items()},
        )


def _paths(names: Sequence[str], known: Mapping[str, Path | None]) -> list[Path]:
    paths = [path for name in names if (path := known[name]) is not None]
    if len(paths) < len(names):
        without = next(name for name in names if known[name] is None)
        raise FileNotFoundError(f"the dataset has no file for the image {without!r}")
    return paths


def _encode_block(
    encode: Callable[[_Inputs], Tensor],
    side: str,
    batches: Iterable[_Inputs],
    extraction: Extraction,
) -> Block:
    encoded: list[Tensor] = []
    names: list[str] = []
    skipped: dict[str, str] = {}
    for batch in batches:
        skipped.update(batch.skipped)
        if batch.inputs is None:
            continue
        features = encode(batch)
        check_features(features, f"what encode_{side} returns")
        features = widen(features)
        if len(features) != len(batch.names):
            raise ValueError(
                f"encode_{side} returned {len(features)} rows for {len(batch.names)} inputs"
            )
        encoded.append(features)
        names.extend(batch.names)
    if not encoded:
        return Block(names, torch.empty(0, 0), skipped)
    features = torch.cat(encoded).to("cpu", extraction.dtype)
    for row in non_finite_rows(features)[:1]:
        raise ValueError(f"the features of {side} {names[row]!r} hold NaN or infinity")
    return Block(names, features, skipped)


def _assemble(side: str, blocks: Sequence[Block]) -> FeatureTable:
    names = [name for block in blocks for name in block.names]
    skipped = {name: reason for block in blocks for name, reason in block.skipped.items()}
    if not names:
        raise ValueError(f"none of {len(skipped)} {side}s: {next(iter(skipped.values()))}")
    features = torch.cat([block.features for block in blocks if len(block.names)])
    return FeatureTable(side, names, features, skipped)

"""Computing the features of every image or text of some datasets, once."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusecomp._core.abilities import (
    encode_named,
    image_loader,
    lookups_of,
    reference_texts_of,
    tower_function,
)
from fusecomp._core.checks import require_choice, strings, whole_number
from fusecomp._core.devices import PRECISIONS, autocast, device_of, inference
from fusecomp._core.progress import progress, say
from fusecomp._core.randomness import repeatable
from fusecomp._core.tensors import check_dtype, check_features, non_finite_rows, widen
from fusecomp.caching._blocks import Block, Blocks
from fusecomp.caching._feature_table import FeatureTable
from fusecomp.caching._token_table import TokenTable
from fusecomp.distributed import gathered_weights, get_rank, get_world_size
from fusecomp.images import ON_ERROR, image_paths, load_available, require_files
from fusecomp.types import SIDES, Dataset, Encoder, Tokens

# Batches a block: what a kill costs, and what one of many processes takes at a time.
_BLOCK_BATCHES = 4
# Inputs of a side -> features, and tokens if they are kept.
_Encode = Callable[[Any], tuple[Tensor, Tokens | None]]


@dataclass(slots=True)
class Extraction:
    """How features are computed and kept; ``CachedEncoder.build`` explains each field."""

    batch_size: int = 128
    num_workers: int | None = None
    precision: str = "fp32"
    dtype: torch.dtype | None = None
    on_error: str = "raise"
    # The sides whose tokens are kept too.
    tokens: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.batch_size = whole_number("batch_size", self.batch_size, 1)
        if self.num_workers is not None:
            self.num_workers = whole_number("num_workers", self.num_workers, 0)
        self.precision = require_choice("precision", self.precision, PRECISIONS)
        self.on_error = require_choice("on_error", self.on_error, ON_ERROR)
        sides = strings("tokens", self.tokens)
        self.tokens = [require_choice("side of tokens", side, SIDES) for side in sides]
        check_dtype(self.dtype)


class _Inputs(NamedTuple):
    """One batch as the encoder takes it; no inputs where no image of it could be loaded."""

    names: Sequence[str]
    inputs: Any
    skipped: Mapping[str, str]


def compute_table(
    encoder: Encoder,
    datasets: Sequence[Dataset],
    side: str,
    extraction: Extraction,
    *,
    finished: Blocks | None = None,
    below_head: bool = False,
    known: FeatureTable | None = None,
) -> FeatureTable:
    """Encode every image or every text of the datasets, once.

    Many processes share the work by whole blocks; each gets the whole table, which begins with the
    rows of ``known`` if that has what is asked for.
    """
    if known is not None and known.tokens is None and side in extraction.tokens:
        known = None
    blocks = _cut(datasets, side, extraction.batch_size * _BLOCK_BATCHES, known)
    if not blocks:
        if known is not None:
            if side == "image":
                image_paths(datasets)  # raises where one id means two files
            return known
        raise ValueError(f"the datasets name no {side} to encode")
    finished = Blocks(None, "") if finished is None else finished
    share = blocks[get_rank() :: get_world_size()]
    remaining = [block for block in share if not _is_done(finished.find(block), extraction)]
    done = sum(map(len, share)) - sum(map(len, remaining))
    inputs = _inputs(encoder, datasets, side, remaining, done, extraction)
    device = device_of(encoder)
    with gathered_weights(encoder), inference(encoder), autocast(device, extraction.precision):
        # Not before: gathering the weights registers the methods of a sharded encoder with FSDP2.
        encode = _encode_function(encoder, side, below_head, side in extraction.tokens)
        for number, block in enumerate(remaining):
            batches = islice(inputs, math.ceil(len(block) / extraction.batch_size))
            encoded = _encode_block(encode, side, batches, extraction, device)
            if number == 0 and finished.on_disk:
                _tell_cost(side, encoded)
            finished.add(block, encoded)
        if remaining:
            next(inputs, None)  # the bar and the workers come to their end
    finished.share()
    old = [] if known is None else [_as_block(known, side in extraction.tokens)]
    return _assemble(side, [*old, *(finished[block] for block in blocks)]).to(device)


def names_of(datasets: Iterable[Dataset], side: str) -> list[str]:
    """Return every image id, or every text, of some datasets, once."""
    names: dict[str, None] = {}
    for data in datasets:
        if side == "image":
            names |= dict.fromkeys(strings("image_ids of a dataset", data.image_ids))
        else:
            names |= dict.fromkeys(strings("texts() of a dataset", data.texts()))
            prompts = list(reference_texts_of(data).values())
            names |= dict.fromkeys(strings("reference_texts of a dataset", prompts))
    return list(names)


def _cut(
    datasets: Iterable[Dataset], side: str, size: int, table: FeatureTable | None
) -> list[list[str]]:
    """Cut the names that no table has into blocks.

    Each dataset begins one: what lies behind it must not change its features in the last bit.
    """
    blocks: list[list[str]] = []
    known = set() if table is None else set(table.rows)
    for data in datasets:
        new = [name for name in names_of([data], side) if name not in known]
        known.update(new)
        blocks += (new[start : start + size] for start in range(0, len(new), size))
    return blocks


def _as_block(table: FeatureTable, with_tokens: bool) -> Block:
    tokens = None
    if with_tokens and table.tokens is not None:
        values, offsets = table.tokens.values.cpu(), table.tokens.offsets.cpu()
        tokens = values[:-1], offsets.diff()
    return Block(list(table.rows), table.features.cpu(), {}, tokens)


def _is_done(block: Block | None, extraction: Extraction) -> bool:
    # What an earlier process has skipped may have been repaired, or must be raised now.
    return block is not None and not (block.skipped and extraction.on_error == "raise")


def _inputs(
    encoder: Encoder,
    datasets: Sequence[Dataset],
    side: str,
    blocks: Sequence[Sequence[str]],
    done: int,
    extraction: Extraction,
) -> Iterator[_Inputs]:
    """Yield the batches of all blocks, with a bar unless they are looked up; loads ahead."""
    batches = [
        list(block[start : start + extraction.batch_size])
        for block in blocks
        for start in range(0, len(block), extraction.batch_size)
    ]
    look_up = lookups_of(encoder).get(side)
    if look_up is not None:
        device = device_of(encoder)
        return (_Inputs(names, look_up(names).to(device), {}) for names in batches)
    if side == "image":
        inputs = _loaded(encoder, datasets, batches, extraction)
    else:
        inputs = (_Inputs(names, names, {}) for names in batches)
    label, total = f"encoding {side}s", done + sum(map(len, batches))
    return progress(inputs, total, label, f"{side}s", per_item=extraction.batch_size, start=done)


def _loaded(
    encoder: Encoder,
    datasets: Sequence[Dataset],
    batches: Sequence[list[str]],
    extraction: Extraction,
) -> Iterator[_Inputs]:
    load_image = image_loader(encoder)
    if load_image is None:
        kind = type(encoder).__name__
        raise ValueError(f"{kind} has no load_image: give it one (path -> tensor) to read files")
    known, paths = image_paths(datasets), {}
    for image_id in chain.from_iterable(batches):
        if (path := known[image_id]) is None:
            raise FileNotFoundError(f"the dataset has no file for the image {image_id!r}")
        paths[image_id] = path
    on_error, device = extraction.on_error, device_of(encoder)
    if on_error == "raise":
        require_files([*paths.values()])
    for images, names, failed in load_available(
        paths, load_image, batches, extraction.num_workers, device, on_error=on_error
    ):
        inputs = None if images is None else images.to(device, non_blocking=True)
        yield _Inputs(names, inputs, {name: str(error) for name, error in failed.items()})


def _encode_function(encoder: Encoder, side: str, below_head: bool, tokens: bool) -> _Encode:
    """Return what gives features, below the head if that is asked for, and maybe tokens."""
    keywords = [f"{side}_tokens"] if tokens else []
    whole = partial(encode_named, encoder, side, keywords)
    if not below_head:
        return whole
    tower = tower_function(encoder, side)
    return lambda inputs: (tower(inputs), whole(inputs)[1] if tokens else None)


def _encode_block(
    encode: _Encode,
    side: str,
    batches: Iterable[_Inputs],
    extraction: Extraction,
    device: torch.device,
) -> Block:
    encoded: list[Tensor] = []
    packed: list[tuple[Tensor, Tensor]] = []
    names: list[str] = []
    skipped: dict[str, str] = {}
    for batch in batches:
        skipped.update(batch.skipped)
        if batch.inputs is None:
            continue
        with repeatable(device, batch.names[0]):
            features, tokens = encode(batch.inputs)
        features = widen(check_features(features, f"what encode_{side} returns"))
        if (rows := len(features)) != (inputs := len(batch.names)):
            raise ValueError(f"encode_{side} returned {rows} rows for {inputs} inputs")
        encoded.append(features)
        if tokens is not None:
            packed.append(_packed(tokens, side, batch.names, extraction.dtype))
        names.extend(batch.names)
    if not encoded:
        return Block(names, torch.empty(0, 0), skipped)
    features = torch.cat(encoded).to("cpu", extraction.dtype)
    for row in non_finite_rows(features)[:1]:
        raise ValueError(f"the features of {side} {names[row]!r} hold NaN or infinity")
    return Block(names, features, skipped, _cat(packed))


def _packed(
    tokens: Tokens, side: str, names: Sequence[str], dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """Return the unmasked tokens of a batch on the CPU, and the number of each row."""
    # On the CPU they are checked: padding that does not come last would be lost.
    values, lengths = Tokens(tokens.values.cpu(), tokens.mask.cpu()).pack()
    values = values.to(dtype)
    for bad in non_finite_rows(values)[:1]:
        row = int((lengths.cumsum(0) <= bad).sum())
        raise ValueError(f"the tokens of {side} {names[row]!r} hold NaN or infinity")
    return values, lengths


def _cat(pieces: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
    """Put tokens and their numbers one after another; None where there are none."""
    values, lengths = list(zip(*pieces, strict=True)) or ((), ())
    return (torch.cat(values), torch.cat(lengths)) if values else None


def _tell_cost(side: str, block: Block) -> None:
    if block.tokens is None:
        return
    values, lengths = block.tokens
    rows, kind = len(lengths), str(values.dtype).removeprefix("torch.")
    way_out = "; with dtype=torch.float16, 2 bytes a number" if values.itemsize > 2 else ""
    say(
        f"tokens of {side}s: {values.nbytes / rows / 1e3:.1f} MB for each 1,000 ({kind}, "
        f"{len(values) / rows:.1f} x {values.shape[1]} numbers each){way_out}"
    )


def _assemble(side: str, blocks: Sequence[Block]) -> FeatureTable:
    names = [name for block in blocks for name in block.names]
    skipped = {name: reason for block in blocks for name, reason in block.skipped.items()}
    if not names:
        raise ValueError(f"none of {len(skipped)} {side}s: {next(iter(skipped.values()))}")
    features = torch.cat([block.features for block in blocks if len(block.names)])
    tokens = _cat(block.tokens for block in blocks if block.tokens is not None)
    table = None if tokens is None else TokenTable.of_rows(*tokens)
    return FeatureTable(side, names, features, skipped, table)

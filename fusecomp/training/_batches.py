from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.abilities import (
    image_loader,
    lookups_of,
    reference_prompts,
    reference_texts_of,
)
from fusecomp._core.checks import ordered, require, strings, whole_number
from fusecomp._core.devices import device_of
from fusecomp.distributed import get_rank, get_world_size
from fusecomp.images import load_available, require_files
from fusecomp.training._stage_config import StageConfig
from fusecomp.types import Batch, Dataset, Encoder, Find, Triplet

# The stream of random numbers that orders batches; datasets have their own.
_ORDER = 1_000_003
# What finds the rows of names (a tuple): positions by "id", and those of each side looked up.
_Finders = Mapping[str, Find]
# Texts, or their rows.
_Texts = Tensor | Sequence[str]


def batches(
    dataset: Dataset, encoder: Encoder, config: StageConfig, epoch: int, start: int = 0
) -> Iterator[Batch]:
    """Yield one epoch of shuffled batches, as the inputs that the encoder takes; encode nothing.

    The order is a pure function of ``config.seed`` and the epoch, and so are the random numbers
    that ``load_image`` draws for an image from ``random``, numpy or torch. Of many processes each
    gets a contiguous share of every batch, by rank; shares differ by one row at most.

    Args:
        dataset: its targets must be known.
        encoder: decides the form of the inputs: row numbers for the sides that it looks up,
            else images opened by ``encoder.load_image`` and strings.
        config: its ``batch_size``, ``drop_last``, ``unique_targets``, ``seed`` and ``num_workers``.
        epoch: from 0.
        start: the number of batches to skip.

    Raises:
        TypeError: if an argument is something else, as when two are swapped.
        ValueError: if epoch or start is no whole number of at least 0, a target is unknown, or
            there are too few triplets for a batch, or fewer rows in one than processes.
        FileNotFoundError: if images are missing.
        ImageError: if one cannot be read.

    Example:
        >>> from types import SimpleNamespace
        >>> from fusecomp.caching import CachedEncoder
        >>> ids, texts = ["a", "b", "c"], ["is a", "is b", "is c"]
        >>> rows = [Triplet(f"{i} to {j}", i, (f"is {j}",), j) for i in ids for j in ids if i != j]
        >>> train = SimpleNamespace(image_ids=ids, triplets=lambda epoch, seed: rows)
        >>> encoder = CachedEncoder.from_arrays(ids, torch.eye(3), texts, torch.eye(3))
        >>> config = StageConfig(epochs=1, batch_size=4, lr=1e-3)
        >>> [len(batch) for batch in batches(train, encoder, config, epoch=0)]
        [4, 2]
    """
    order = "dataset, encoder, config, epoch"
    require("dataset", dataset, "triplets", "a Dataset", order)
    require("encoder", encoder, "encode_image", "an encoder", order)
    require("config", config, "fixed", "a StageConfig", order)
    epoch, start = whole_number("epoch", epoch, 0), whole_number("start", start, 0)
    return Epochs(dataset, encoder, config).batches(epoch, start)


class Epochs:
    """The batches of one epoch after another, as ``batches`` yields them."""

    def __init__(
        self, dataset: Dataset, encoder: Encoder, config: StageConfig, with_prompts: bool = True
    ) -> None:
        self._dataset = dataset
        self._prompts = reference_texts_of(dataset) if with_prompts else {}
        self._encoder = encoder
        self._config = config
        self._image_ids = strings("image_ids of a dataset", dataset.image_ids)
        positions = {image_id: position for position, image_id in enumerate(self._image_ids)}

        def find(ids: Sequence[str]) -> Tensor:
            # Several times as fast as torch.tensor of a list.
            return torch.from_numpy(
                np.fromiter(map(positions.__getitem__, ids), np.int64, len(ids))
            )

        functions: dict[str, Find] = {"id": find, **lookups_of(encoder)}
        # Epochs mostly have the same references and targets in the same order, found once.
        self._find: _Finders = {n: lru_cache(maxsize=2)(f) for n, f in functions.items()}

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, skipping the first ``start``."""
        given = self._dataset.triplets(epoch, self._config.seed)
        triplets = ordered("triplets() of a dataset", given, "triplets")
        inputs = _EpochInputs(triplets, self._find, self._prompts)
        whole = plan(len(triplets), self._config, epoch, inputs.target_ids)[start:]
        shares = [batch.tensor_split(get_world_size())[get_rank()] for batch in whole]
        if "image" in self._find:
            yield from map(inputs.batch, shares)
            return
        images = self._images(inputs, shares, epoch)
        for rows, (reference, target) in zip(shares, images, strict=True):
            yield replace(inputs.batch(rows), reference=reference, target=target)

    def _images(
        self, inputs: "_EpochInputs", shares: Sequence[Tensor], epoch: int
    ) -> Iterator[Sequence[Tensor]]:
        """Load references and targets of each batch."""
        load_image = image_loader(self._encoder)
        if load_image is None:
            raise ValueError(
                f"{type(self._encoder).__name__} has no load_image to read images with"
            )
        both = torch.stack([inputs.reference_ids, inputs.target_ids])
        paths = {n: self._dataset.path(self._image_ids[n]) for n in both.unique().tolist()}
        require_files(list(paths.values()))
        for loaded in load_available(
            paths,
            load_image,
            [both[:, rows].flatten().tolist() for rows in shares],
            self._config.num_workers,
            device_of(self._encoder),
            (self._config.seed, epoch),
            on_error="raise",
        ):
            if loaded.images is not None:
                yield loaded.images.chunk(2)


def plan(count: int, config: StageConfig, epoch: int, target_ids: Tensor) -> list[Tensor]:
    """Choose the rows of each batch of an epoch, on all processes together; int64."""
    if config.batch_size < get_world_size():
        raise ValueError(
            f"batch_size={config.batch_size} is less than a row for each of {get_world_size()} "
            "processes: raise it, or start fewer"
        )
    order: NDArray[np.int64]
    order = np.random.default_rng([config.seed, epoch, _ORDER]).permutation(count)
    parts = list(torch.from_numpy(order).split(config.batch_size)) if count else []
    if config.drop_last and parts and len(parts[-1]) < config.batch_size:
        parts.pop()
    if config.unique_targets and parts:
        parts = _keep_targets_apart(parts, target_ids)
    # A single row has no negatives, and every process needs a row.
    least = max(2, get_world_size())
    if len(parts) > 1 and len(parts[-1]) < least:
        parts[-2:] = [torch.cat(parts[-2:])]
    if not parts or len(parts[-1]) < least:
        raise ValueError(
            f"{count} triplets make no batch of {config.batch_size}"
            + (" with drop_last=True; take a smaller batch_size" if config.drop_last else "")
        )
    return parts


def _keep_targets_apart(parts: list[Tensor], target_ids: Tensor) -> list[Tensor]:
    """Rearrange rows in batches of the same sizes, each target once a batch where that can be.

    A row goes into the first batch with room behind its target's last one. What is full is then
    always a number of batches at the beginning, and perhaps the last one, if it is smaller: a
    batch is passed over only for a target that it holds, so those behind hold no other targets.
    """
    sizes = [len(part) for part in parts]
    rows: list[list[int]] = [[] for _ in parts]
    left, last, first = [], dict[int, int](), 0
    order = torch.cat(parts)
    for row, target in zip(order.tolist(), target_ids[order].tolist(), strict=True):
        while len(rows[first]) == sizes[first]:
            first += 1
        number = max(first, last.get(target, -1) + 1)
        if number == len(parts) or len(rows[number]) == sizes[number]:
            left.append(row)
        else:
            last[target] = number
            rows[number].append(row)
    for size, chosen in zip(sizes, rows, strict=True):
        room = size - len(chosen)
        chosen += left[:room]
        del left[:room]
    return [torch.tensor(part, dtype=torch.int64) for part in rows]


class _EpochInputs:
    """The inputs of all triplets of an epoch; strings are resolved to rows once."""

    def __init__(
        self, triplets: Sequence[Triplet], find: _Finders, prompts: Mapping[str, str]
    ) -> None:
        self._query_ids = [triplet.query_id for triplet in triplets]
        references = tuple(triplet.reference_id for triplet in triplets)
        targets = tuple(t.target_id for t in triplets if t.target_id is not None)
        if len(targets) < len(triplets):
            query_id = next(t.query_id for t in triplets if t.target_id is None)
            raise ValueError(f"query {query_id!r} has no target to train on")
        try:
            self.reference_ids, self.target_ids = find["id"](references), find["id"](targets)
        except KeyError as error:
            query_id = next(t.query_id for t in triplets if error.args[0] in t.image_ids)
            raise ValueError(
                f"query {query_id!r}: image {error.args[0]!r} is not among the dataset's image_ids"
            ) from None
        # Positions stand in for images that are still to be loaded.
        find_images = find.get("image", find["id"])
        self._references, self._targets = find_images(references), find_images(targets)
        texts_of = [triplet.texts for triplet in triplets]
        counts = np.fromiter(map(len, texts_of), np.int64, len(triplets))
        self._counts = torch.from_numpy(counts)
        self._first = self._counts.cumsum(0) - self._counts
        find_texts: Callable[[tuple[str, ...]], _Texts] = find.get("text", tuple)
        self._texts = find_texts(tuple(chain.from_iterable(texts_of)))
        told = tuple(reference_prompts(prompts, references)) if prompts else None
        self._prompts = None if told is None else find_texts(told)

    def batch(self, rows: Tensor) -> Batch:
        """Return the inputs of some triplets."""
        counts = self._counts[rows]
        before = counts.cumsum(0) - counts
        positions = torch.arange(int(counts.sum()))
        positions += torch.repeat_interleave(self._first[rows] - before, counts)
        return Batch(
            reference=self._references[rows],
            texts=_take(self._texts, positions),
            target=self._targets[rows],
            text_counts=counts,
            target_ids=self.target_ids[rows],
            reference_ids=self.reference_ids[rows],
            query_ids=[self._query_ids[row] for row in rows.tolist()],
            reference_texts=None if self._prompts is None else _take(self._prompts, rows),
        )


def _take(texts: _Texts, rows: Tensor) -> Tensor | list[str]:
    return texts[rows] if isinstance(texts, Tensor) else [texts[row] for row in rows.tolist()]

from collections.abc import Iterator, Mapping, Sequence
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
# What finds the numbers of an epoch's names (a tuple), by what they are.
_Numbers = Mapping[str, Find]


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
        image_ids = strings("image_ids of a dataset", dataset.image_ids)
        positions = {image_id: position for position, image_id in enumerate(image_ids)}

        def find(ids: Sequence[str]) -> Tensor:
            # Several times as fast as torch.tensor of a list.
            return torch.from_numpy(
                np.fromiter(map(positions.__getitem__, ids), np.int64, len(ids))
            )

        functions: dict[str, Find] = {"reference_ids": find, "target_ids": find}
        lookup = lookups_of(encoder)
        if "image" in lookup:
            functions |= {"references": lookup["image"], "targets": lookup["image"]}
        if "text" in lookup:
            functions |= {"texts": lookup["text"], "reference_texts": lookup["text"]}
        # Epochs mostly have the same images in the same order, whose numbers are found once.
        self._numbers: _Numbers = {n: lru_cache(maxsize=1)(f) for n, f in functions.items()}

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, skipping the first ``start``."""
        config = self._config
        given = self._dataset.triplets(epoch, config.seed)
        triplets = ordered("triplets() of a dataset", given, "triplets")
        inputs = _EpochInputs(
            self._dataset, triplets, self._numbers, (config.seed, epoch), self._prompts
        )
        whole = plan(len(triplets), config, epoch, inputs.target_ids)[start:]
        shares = [batch.tensor_split(get_world_size())[get_rank()] for batch in whole]
        images = inputs.images(self._encoder, shares, config.num_workers)
        for rows, (reference, target) in zip(shares, images, strict=True):
            texts, text_counts = inputs.texts(rows)
            yield Batch(
                reference=reference,
                texts=texts,
                target=target,
                text_counts=text_counts,
                target_ids=inputs.target_ids[rows],
                reference_ids=inputs.reference_ids[rows],
                query_ids=[inputs.query_ids[row] for row in rows.tolist()],
                reference_texts=inputs.reference_texts(rows),
            )


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
    """Rearrange rows in batches of the same sizes, each target once a batch where that can be."""
    rows: list[list[int]] = [[] for _ in parts]
    # From a batch that is full, a way to one behind it that may have room; the last has none.
    onward = list(range(len(parts) + 1))
    # What a target's last batch passed over stays full or holds the target, so its next is behind.
    last: dict[int, int] = {}
    left = []

    def put(row: int, number: int) -> None:
        rows[number].append(row)
        if len(rows[number]) == len(parts[number]):
            onward[number] = number + 1

    order = torch.cat(parts)
    for row, target in zip(order.tolist(), target_ids[order].tolist(), strict=True):
        number = _first_with_room(onward, last.get(target, -1) + 1)
        if number == len(parts):
            left.append(row)
            continue
        last[target] = number
        put(row, number)
    for row in left:
        put(row, _first_with_room(onward, 0))
    return [torch.tensor(part, dtype=torch.int64) for part in rows]


def _first_with_room(onward: list[int], number: int) -> int:
    while onward[number] != number:
        onward[number] = onward[onward[number]]
        number = onward[number]
    return number


class _EpochInputs:
    """The inputs of all triplets of an epoch; strings are resolved to rows once."""

    def __init__(
        self,
        dataset: Dataset,
        triplets: Sequence[Triplet],
        numbers: _Numbers,
        key: tuple[int, int],
        prompts: Mapping[str, str],
    ) -> None:
        self._dataset = dataset
        self._key = key
        self.query_ids = [triplet.query_id for triplet in triplets]
        references = tuple(triplet.reference_id for triplet in triplets)
        targets = tuple(t.target_id for t in triplets if t.target_id is not None)
        if len(targets) < len(triplets):
            query_id = next(t.query_id for t in triplets if t.target_id is None)
            raise ValueError(f"query {query_id!r} has no target to train on")
        try:
            self.reference_ids = numbers["reference_ids"](references)
            self.target_ids = numbers["target_ids"](targets)
        except KeyError as error:
            query_id = next(t.query_id for t in triplets if error.args[0] in t.image_ids)
            raise ValueError(
                f"query {query_id!r}: image {error.args[0]!r} is not among the dataset's image_ids"
            ) from None
        self._image_rows = None
        if "references" in numbers:
            self._image_rows = numbers["references"](references), numbers["targets"](targets)
        texts_of = [triplet.texts for triplet in triplets]
        self._texts = tuple(chain.from_iterable(texts_of))
        counts = np.fromiter(map(len, texts_of), np.int64, len(triplets))
        self._counts = torch.from_numpy(counts)
        self._first = self._counts.cumsum(0) - self._counts
        self._text_rows = numbers["texts"](self._texts) if "texts" in numbers else None
        self._prompts: Tensor | list[str] | None = None
        if prompts:
            self._prompts = reference_prompts(prompts, references)
            if "reference_texts" in numbers:
                self._prompts = numbers["reference_texts"](tuple(self._prompts))

    def texts(self, rows: Tensor) -> tuple[Tensor | list[str], Tensor]:
        """Return the texts of some triplets, one after another, and the number that each has."""
        counts = self._counts[rows]
        before = counts.cumsum(0) - counts
        positions = torch.arange(int(counts.sum()))
        positions += torch.repeat_interleave(self._first[rows] - before, counts)
        if self._text_rows is not None:
            return self._text_rows[positions], counts
        return [self._texts[position] for position in positions.tolist()], counts

    def reference_texts(self, rows: Tensor) -> Tensor | list[str] | None:
        """Return the prompts of some triplets' references, where the dataset has them."""
        if self._prompts is None or isinstance(self._prompts, Tensor):
            return None if self._prompts is None else self._prompts[rows]
        return [self._prompts[row] for row in rows.tolist()]

    def images(
        self, encoder: Encoder, shares: Sequence[Tensor], num_workers: int | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield references and targets of each batch."""
        if self._image_rows is not None:
            references, targets = self._image_rows
            yield from ((references[rows], targets[rows]) for rows in shares)
            return
        load_image = image_loader(encoder)
        if load_image is None:
            raise ValueError(f"{type(encoder).__name__} has no load_image to read images with")
        used = torch.cat([self.reference_ids, self.target_ids]).unique().tolist()
        image_ids = list(self._dataset.image_ids)
        paths = {index: self._dataset.path(image_ids[index]) for index in used}
        require_files(list(paths.values()))
        positions = [
            torch.cat([self.reference_ids[rows], self.target_ids[rows]]).tolist() for rows in shares
        ]
        device, key = device_of(encoder), self._key
        for loaded in load_available(
            paths, load_image, positions, num_workers, device, key, on_error="raise"
        ):
            if loaded.images is not None:
                reference, target = loaded.images.chunk(2)
                yield reference, target

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from raising import own_error
from toy import DIM, IMAGES, Toy, assert_same, encoder

import fusecomp as fc
from fusecomp.images._loading import ImageError
from fusecomp.training import _batches, batches

CONFIG = fc.StageConfig(epochs=2, batch_size=4, lr=0.1)


def plan(count: int, config: fc.StageConfig, epoch: int) -> list[torch.Tensor]:
    """Of rows that each have a target of their own."""
    return _batches.plan(count, config, epoch, torch.arange(count))


@given(st.integers(2, 60), st.integers(2, 20), st.booleans(), st.integers(0, 5), st.integers(0, 5))
def test_every_row_once_unless_the_last_batch_is_dropped(
    count: int, size: int, drop_last: bool, seed: int, epoch: int
) -> None:
    config = fc.StageConfig(epochs=1, batch_size=size, lr=0.1, drop_last=drop_last, seed=seed)
    if drop_last and count < size:
        with pytest.raises(ValueError, match="drop_last"):
            plan(count, config, epoch)
        return
    parts = plan(count, config, epoch)
    rows = torch.cat(parts).tolist()
    assert len(set(rows)) == len(rows) == (count - count % size if drop_last else count)
    assert all(len(part) >= 2 for part in parts)
    assert [part.tolist() for part in plan(count, config, epoch)] == [p.tolist() for p in parts]


@given(st.integers(4, 40), st.integers(2, 20), st.integers(0, 5))
def test_dropped_rows_differ_by_epoch_until_each_was_there(
    count: int, size: int, seed: int
) -> None:
    size = min(size, count)
    config = fc.StageConfig(epochs=1, batch_size=size, lr=0.1, drop_last=True, seed=seed)
    seen: set[int] = set()
    epochs = 0
    while len(seen) < count:
        seen.update(torch.cat(plan(count, config, epochs)).tolist())
        epochs += 1
        # An epoch leaves out less than half, so that a row is missed by few in a row.
        assert epochs < 40


def test_epochs_and_seeds_differ() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat(plan(50, replace(CONFIG, seed=seed), epoch)).tolist()

    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_triplets(count: int) -> None:
    with pytest.raises(ValueError, match="make no batch"):
        plan(count, CONFIG, 0)


def test_dropping_the_only_batch_names_the_way_out() -> None:
    config = replace(CONFIG, batch_size=64, drop_last=True)
    message = "50 triplets make no batch of 64 with drop_last=True; take a smaller batch_size"
    with pytest.raises(ValueError, match=message):
        plan(50, config, 0)


def test_live_inputs_are_images_and_strings(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    model = encoder()
    by_id = {triplet.query_id: triplet for triplet in data.triplets(epoch=1)}
    seen: list[str] = []
    for batch in batches(data, model, CONFIG, epoch=1):
        for row, query_id in enumerate(batch.query_ids):
            triplet = by_id[query_id]
            reference = model.load_image(data.path(triplet.reference_id))  # type: ignore[misc]
            assert torch.equal(batch.reference[row], reference)
            assert data.image_ids[batch.target_ids[row]] == triplet.target_id
            assert data.image_ids[batch.reference_ids[row]] == triplet.reference_id
            assert batch.texts[row] == triplet.texts[0]
        seen += batch.query_ids
        assert len(batch) == len(batch.query_ids)
    assert sorted(seen) == sorted(by_id)


def test_cached_inputs_give_the_features_of_the_live_ones(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    live = encoder()
    cached = fc.CachedEncoder.build(live, data)
    pairs = zip(
        batches(data, live, CONFIG, epoch=1), batches(data, cached, CONFIG, epoch=1), strict=True
    )
    for one, other in pairs:
        assert one.query_ids == other.query_ids
        torch.testing.assert_close(live.encode_image(one.target), cached.encode_image(other.target))
        torch.testing.assert_close(live.encode_text(one.texts), cached.encode_text(other.texts))


def test_several_texts_stay_with_their_row(tmp_path: Path) -> None:
    class Several(Toy):
        def triplets(self, epoch: int = 0, seed: int = 0) -> list[fc.Triplet]:
            return [
                replace(t, texts=tuple(f"word {w}" for w in range(1 + n % 3)))
                for n, t in enumerate(super().triplets(epoch, seed))
            ]

    data = Several(tmp_path)
    texts = {t.query_id: t.texts for t in data.triplets()}
    for use in (encoder(), fc.CachedEncoder.build(encoder(), data)):
        names = data.texts()
        for batch in batches(data, use, CONFIG, epoch=0):
            flat = batch.texts if isinstance(batch.texts, list) else [names[i] for i in batch.texts]
            split = batch.text_counts.tolist()
            for query_id, count in zip(batch.query_ids, split, strict=True):
                assert tuple(flat[:count]) == texts[query_id]
                flat = flat[count:]
            assert not flat


class Counting(fc.CachedEncoder):
    """Counts what it is asked to look up."""

    asked: ClassVar[list[str]] = []

    @property
    def lookup(self) -> Mapping[str, Callable[[Sequence[str]], torch.Tensor]]:
        def find(side: str, names: Sequence[str]) -> torch.Tensor:
            self.asked.append(side)
            table = self.image if side == "image" else self.text
            return table.find(names)

        return {side: partial(find, side) for side in ("image", "text")}


def test_names_that_come_again_are_found_once_and_others_anew(tmp_path: Path) -> None:
    class Moving(Toy):
        """Other references from the third epoch on, other targets in the fourth alone."""

        def triplets(self, epoch: int = 0, seed: int = 0) -> list[fc.Triplet]:
            rows = super().triplets(epoch, seed)
            if epoch >= 2:
                rows = [replace(row, reference_id=row.target_id or "") for row in rows]
            return [replace(row, target_id="7") for row in rows] if epoch == 3 else rows

    data = Moving(tmp_path)
    Counting.asked.clear()
    cached = Counting.build(encoder(), data)
    epochs = _batches.Epochs(data, cached, CONFIG)
    of_images = []
    for epoch in range(5):
        before = Counting.asked.count("image")
        remembered = list(epochs.batches(epoch))
        of_images.append(Counting.asked.count("image") - before)
        for one, other in zip(remembered, batches(data, cached, CONFIG, epoch), strict=True):
            for name in other.__slots__:
                assert_same(getattr(one, name), getattr(other, name), name)
    assert of_images == [2, 0, 0, 1, 0]  # these references were targets before


# By argument: its message, and values that it does not take.
NO_BATCHES: dict[str, tuple[str, list[Any]]] = {
    "dataset": ("dataset ", [None, encoder(), [1], CONFIG, Toy]),
    "encoder": ("encoder ", [None, CONFIG, len, fc.CachedEncoder]),
    "config": ("config ", [None, {"batch_size": 8}, 0, "config", type(CONFIG)]),
    "epoch": ("epoch must be a whole number of at least 0", [-1, 1.0, True, None, "0", CONFIG]),
    "start": ("start must be a whole number of at least 0", [-1, 1.0, True, None, "0"]),
}


@pytest.mark.parametrize("name", NO_BATCHES)
def test_what_makes_no_batches_is_named_at_once(tmp_path: Path, name: str) -> None:
    right = {"dataset": Toy(tmp_path), "encoder": encoder(), "config": CONFIG, "epoch": 0}
    message, values = NO_BATCHES[name]
    for value in values:
        assert own_error(batches, **{**right, name: value}).startswith(message), value


def test_swapped_arguments_of_batches_are_told_the_order(tmp_path: Path) -> None:
    message = own_error(batches, encoder(), Toy(tmp_path), CONFIG, 0)
    assert message.endswith("; the order is dataset, encoder, config, epoch")


def test_start_leaves_out_the_first_batches(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    whole = list(batches(data, encoder(), CONFIG, epoch=0))
    rest = list(batches(data, encoder(), CONFIG, epoch=0, start=2))
    assert [b.query_ids for b in rest] == [b.query_ids for b in whole[2:]]
    assert list(batches(data, encoder(), CONFIG, epoch=0, start=len(whole))) == []


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    alone = list(batches(data, encoder(), replace(CONFIG, num_workers=0), epoch=0))
    helped = list(batches(data, encoder(), replace(CONFIG, num_workers=2), epoch=0))
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.reference, other.reference)
        assert torch.equal(one.target, other.target)


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    data = Toy(tmp_path, rows=IMAGES)
    (tmp_path / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of \d+ images are missing.*3\.png"):
        next(batches(data, encoder(), CONFIG, epoch=0))


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    class Named(Toy):
        def path(self, image_id: str) -> Path:
            return self.root / ("broken.png" if image_id == "1" else f"{image_id}.png")

    data = Named(tmp_path)
    (tmp_path / "broken.png").touch()
    with pytest.raises(ImageError, match=r"broken\.png"):
        list(batches(data, encoder(), CONFIG, epoch=0))


def test_unknown_targets_cannot_train(tmp_path: Path) -> None:
    class Hidden(Toy):
        def triplets(self, epoch: int = 0, seed: int = 0) -> list[fc.Triplet]:
            return [replace(t, target_id=None) for t in super().triplets(epoch, seed)]

    with pytest.raises(ValueError, match="no target to train on"):
        next(batches(Hidden(tmp_path), encoder(), CONFIG, epoch=0))


def test_an_encoder_without_load_is_named(tmp_path: Path) -> None:
    blind = fc.DualEncoder(image=lambda x: x, text=lambda x: x)
    with pytest.raises(ValueError, match="has no load_image"):
        next(batches(Toy(tmp_path), blind, CONFIG, epoch=0))


def test_an_unknown_image_is_named(tmp_path: Path) -> None:
    class Astray(Toy):
        def triplets(self, epoch: int = 0, seed: int = 0) -> list[fc.Triplet]:
            rows = super().triplets(epoch, seed)
            return [*rows, fc.Triplet("stray", "0", ("word 1",), "zzz")]

    with pytest.raises(ValueError, match="query 'stray': image 'zzz' is not among"):
        next(batches(Astray(tmp_path), encoder(), CONFIG, epoch=0))


class Crop:
    """An augmentation that draws from all three streams."""

    def __call__(self, path: Path) -> torch.Tensor:
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item(), 0.0])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_random_loading_is_a_function_of_seed_epoch_and_image(
    tmp_path: Path, num_workers: int
) -> None:
    data = Toy(tmp_path)
    live = fc.DualEncoder(torch.nn.Linear(4, DIM), torch.nn.Identity(), load_image=Crop())

    def images(global_seed: int, epoch: int, num_workers: int, start: int = 0) -> torch.Tensor:
        torch.manual_seed(global_seed)
        random.seed(global_seed)
        config = replace(CONFIG, num_workers=num_workers)
        return torch.cat([b.target for b in batches(data, live, config, epoch, start)])

    expected = images(0, epoch=0, num_workers=0)
    targets = {triplet.target_id for triplet in data.triplets()}
    assert len(expected.unique()) == 3 * len(targets) + 1
    assert torch.equal(images(1, epoch=0, num_workers=num_workers), expected)
    assert torch.equal(images(1, epoch=0, num_workers=num_workers, start=1), expected[4:])
    assert not torch.equal(images(0, epoch=1, num_workers=num_workers), expected)


@given(st.lists(st.integers(0, 8), min_size=4, max_size=60), st.integers(2, 10), st.integers(0, 3))
def test_targets_are_kept_apart_where_that_can_be(
    targets: list[int], size: int, epoch: int
) -> None:
    config = replace(CONFIG, batch_size=size, unique_targets=True)
    apart = _batches.plan(len(targets), config, epoch, torch.tensor(targets))
    plain = plan(len(targets), config, epoch)
    assert [len(part) for part in apart] == [len(part) for part in plain]
    assert sorted(torch.cat(apart).tolist()) == list(range(len(targets)))

    def collisions(parts: list[torch.Tensor]) -> int:
        return sum(len(part) - len({targets[row] for row in part.tolist()}) for part in parts)

    assert collisions(apart) <= collisions(plain)
    if len(targets) % size != 1:  # a last row alone joins the batch before
        assert [part.tolist() for part in apart] == first_fit(plain, targets)


def first_fit(plain: list[torch.Tensor], targets: list[int]) -> list[list[int]]:
    """Put each row in the first batch with room that has not its target, else in one with room."""
    parts: list[list[int]] = [[] for _ in plain]
    left: list[int] = []
    for row in torch.cat(plain).tolist():
        roomy = [part for part, size in zip(parts, plain, strict=True) if len(part) < len(size)]
        fitting = [p for p in roomy if all(targets[other] != targets[row] for other in p)]
        (fitting[0] if fitting else left).append(row)
    for row in left:
        next(p for p, size in zip(parts, plain, strict=True) if len(p) < len(size)).append(row)
    return parts


def test_frequent_targets_are_not_those_that_are_dropped() -> None:
    """Half of all rows want one target; what is dropped is chosen before they are parted."""
    targets = torch.cat([torch.zeros(50, dtype=torch.int64), torch.arange(1, 56)])
    config = replace(CONFIG, batch_size=10, drop_last=True)
    for epoch in range(5):
        apart = _batches.plan(105, replace(config, unique_targets=True), epoch, targets)
        plain = _batches.plan(105, config, epoch, targets)
        assert sorted(torch.cat(apart).tolist()) == sorted(torch.cat(plain).tolist())


def test_unique_targets_leave_no_collision_in_usual_data() -> None:
    targets = torch.arange(400) % 150
    config = replace(CONFIG, batch_size=64, unique_targets=True)
    for part in _batches.plan(400, config, 0, targets)[:-1]:
        assert len(targets[part].unique()) == len(part)

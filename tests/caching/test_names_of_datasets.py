"""Datasets of one's own whose ids, texts or triplets have no order, or are no lists: refused."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from raising import own_error

import fusecomp as fc
from fusecomp.datasets import drop_images
from fusecomp.training import batches

IDS, TEXTS = list("abcdefgh"), [f"is {letter}" for letter in "abcdefgh"]
QUERIES = [
    fc.Triplet(f"q{n}", IDS[n], (TEXTS[n],), IDS[(n + 1) % len(IDS)]) for n in range(len(IDS))
]
CACHED = fc.CachedEncoder.from_arrays(IDS, torch.eye(8), TEXTS, torch.eye(8))
CONFIG = fc.StageConfig(epochs=1, batch_size=4, lr=0.1)


@dataclass
class Own:
    """What somebody wrote."""

    image_ids: Any = tuple(IDS)
    text_list: Any = tuple(TEXTS)
    triplet_list: Any = tuple(QUERIES)

    def path(self, image_id: str) -> Path:
        raise FileNotFoundError(image_id)

    def texts(self) -> Any:
        return self.text_list

    def triplets(self, epoch: int = 0, seed: int = 0) -> Any:
        return self.triplet_list

    def tasks(self) -> list[Any]:
        return []

    def __len__(self) -> int:
        return len(QUERIES)


def build(data: Own) -> Any:
    return list(fc.CachedEncoder.build(CACHED, data).image.rows)


def build_of_file(folder: Path) -> Callable[[Own], Any]:
    path = folder / "features.pt"
    fc.CachedEncoder.build(CACHED, Own(), path=path, key="mine")
    return lambda data: fc.CachedEncoder.build(CACHED, data, path=path, key="mine")


def batched(data: Own) -> Any:
    return [batch.query_ids for batch in batches(data, CACHED, CONFIG, 0)]


def fitted(data: Own) -> Any:
    return fc.Trainer(
        fc.ComposedEncoder(CACHED, fc.Combiner(8)), loss=fc.InfoNCE(), config=CONFIG
    ).fit(data)


def batched_without(data: Own) -> Any:
    return batched(drop_images(data, ["a"]))  # type: ignore[arg-type]


NO_LISTS: dict[str, Callable[[list[Any]], Any]] = {
    "set": set,
    "frozenset": frozenset,
    "generator": lambda values: (value for value in values),
    "string": lambda values: "abcdefgh",
    "dict": dict.fromkeys,
    "items": lambda values: dict.fromkeys(values).items(),
    "none": lambda values: None,
}


@pytest.mark.parametrize("kind", NO_LISTS)
def test_what_has_no_order_is_refused_wherever_a_dataset_is_read(kind: str, tmp_path: Path) -> None:
    make = NO_LISTS[kind]
    ids, texts, queries = make(IDS), make(TEXTS), make(QUERIES)
    for read in (build, build_of_file(tmp_path), batched, fitted, batched_without):
        message = own_error(read, Own(image_ids=ids))
        assert message.startswith("image_ids of a dataset must be a list of strings, got the")
        ids = make(IDS)
    for read in (build, build_of_file(tmp_path / "again")):
        message = own_error(read, Own(text_list=texts))
        assert message.startswith("texts() of a dataset must be a list of strings, got the")
        texts = make(TEXTS)
    for read in (batched, fitted, batched_without):
        message = own_error(read, Own(triplet_list=queries))
        assert message.startswith("triplets() of a dataset must be a list of triplets, got the")
        queries = make(QUERIES)


def test_the_views_of_a_dict_have_an_order() -> None:
    views = Own(dict.fromkeys(IDS).keys(), dict(enumerate(TEXTS)).values(), {1: QUERIES}[1])
    assert build(views) == IDS
    assert batched(views) == batched(Own())
    own = fc.CachedEncoder.from_arrays(views.image_ids, torch.eye(8), views.texts(), torch.eye(8))
    assert own.image.find(views.image_ids).tolist() == list(range(8))
    assert torch.equal(own.encode_text(views.texts()), torch.eye(8))
    model = fc.ComposedEncoder(CACHED, fc.Sum())
    assert torch.equal(model.encode_gallery(views.image_ids), model.encode_gallery(IDS))

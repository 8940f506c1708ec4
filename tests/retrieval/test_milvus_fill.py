"""Filling Milvus: it goes on where it was stopped, and writes nothing over."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from in_milvus import FEATURES, IDS, QUERY, SIZE, WIDTH, draw, make, names, release
from processes import CONTEXT

from fusecomp.retrieval import ExactIndex, _milvus_collection


def test_a_collection_that_was_only_begun_is_made_whole(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = next(names)

    def interrupted(name: str, indexes: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(client, "create_index", interrupted)
        with pytest.raises(Killed):
            make(client, collection=collection)
    index = make(client, collection=collection)
    assert torch.equal(index.search(QUERY, 9)[1], ExactIndex(FEATURES).search(QUERY, 9)[1])


class Killed(BaseException):
    """Stands for Ctrl-C at a moment that the test chooses."""


def test_a_fill_goes_on_where_it_was_interrupted(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_milvus_collection, "_VALUES", 40 * WIDTH - 1)
    monkeypatch.setattr(_milvus_collection, "_READ", 70)
    collection, upsert = next(names), client.upsert
    written: list[int] = []

    def interrupted(name: str, rows: Any) -> Any:
        if len(written) in (2, 6):
            written.append(0)
            raise Killed
        written.append(len(rows))
        return upsert(name, rows)

    monkeypatch.setattr(client, "upsert", interrupted)
    for _ in range(2):
        with pytest.raises(Killed):
            make(client, collection=collection)
    index = make(client, collection=collection)
    assert written == [40, 40, 0, 40, 40, 40, 0, 40, 40, 40, 40, 40]
    assert torch.equal(index.search(QUERY, 9)[1], ExactIndex(FEATURES).search(QUERY, 9)[1])
    make(client, collection=collection)
    assert len(written) == 12


def test_an_interrupted_add_is_noticed_and_goes_on(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_milvus_collection, "_VALUES", 10 * WIDTH - 1)
    index, upsert, more = make(client, FEATURES[:100]), client.upsert, IDS[100:130]

    def once(name: str, rows: Any) -> Any:
        if len(rows) and rows[0]["position"] == 110:
            raise Killed
        return upsert(name, rows)

    with monkeypatch.context() as patched:
        patched.setattr(client, "upsert", once)
        with pytest.raises(Killed):
            index.add(FEATURES[100:130], image_ids=more)
    with pytest.raises(RuntimeError, match="holds images that this index does not know"):
        index.search(FEATURES[103:104], 1)
    with pytest.raises(ValueError, match="holds 10 images that differ"):
        index.add(FEATURES[110:140], image_ids=IDS[110:140])
    index.add(FEATURES[100:130], image_ids=more)
    found = index.search(QUERY, 20)[1]
    assert torch.equal(found, ExactIndex(FEATURES[:130]).search(QUERY, 20)[1])


MANY = draw(3000, 8)


def fill(path: str, collection: str, interrupted: int, how: int) -> None:
    """Fill in a process of its own, which gets a signal while the engine writes."""
    from pymilvus import MilvusClient

    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
    _milvus_collection._VALUES = 250 * WIDTH - 1
    client, started = MilvusClient(path), []
    upsert = client.upsert

    def signalled(name: str, rows: Any) -> Any:
        started.append(name)
        if len(started) == interrupted:
            threading.Timer(0.002, os.kill, (os.getpid(), how)).start()
        done = upsert(name, rows)
        if len(started) == interrupted:  # it was too late, or the engine's thread dropped it
            signal.raise_signal(how)
        return done

    client.upsert = signalled
    make(client, MANY, collection=collection, image_ids=[*map(str, range(3000))])


def test_a_fill_after_two_kills_equals_one_fill(
    client: Any, server: str | None, tmp_path: Path
) -> None:
    path, collection = server or str(tmp_path / "images.db"), next(names)
    ids = [*map(str, range(3000))]
    for interrupted, how in ((4, signal.SIGKILL), (3, signal.SIGINT)):
        process = CONTEXT.Process(target=fill, args=(path, collection, interrupted, how))
        process.start()
        process.join(120)
        assert process.exitcode in (-how, 1)
    again = type(client)(path)  # and so no process has kept the file
    again.load_collection(collection)
    fields = ["id", "position", "digest", "vector"]
    there = again.query(collection, filter="position >= 0", output_fields=fields)
    assert 1000 <= len(there) <= 2000
    index = make(again, MANY, collection=collection, image_ids=ids)
    whole = make(client, MANY, image_ids=ids)
    contents = [
        sorted((row["position"], row["id"], row["digest"], *row["vector"]) for row in rows)
        for rows in (
            of.collection.client.query(
                of.collection.name, filter="position >= 0", output_fields=fields
            )
            for of in (index, whole)
        )
    ]
    assert contents[0] == contents[1]
    assert torch.equal(index.search(QUERY, 50)[1], ExactIndex(MANY).search(QUERY, 50)[1])
    release(path)


def test_another_gallery_is_never_written_over(client: Any) -> None:
    collection = next(names)
    make(client, collection=collection, attributes={"a": [1] * SIZE})
    others: list[dict[str, Any]] = [
        {"features": FEATURES + 1e-4},
        {"features": FEATURES.half()},
        {"image_ids": [*IDS[1:], IDS[0]]},
        {"attributes": {"a": [1, *[2] * (SIZE - 1)]}},
        {"features": FEATURES[1:], "attributes": {"a": [1] * (SIZE - 1)}},
        {"image_ids": [None, *IDS[1:]]},
    ]
    known: dict[str, Any] = {"collection": collection, "attributes": {"a": [1] * SIZE}}
    for other in others:
        with pytest.raises(ValueError, match=f"'{collection}' holds .* images that differ from"):
            make(client, **{**known, **other})
    wrongs = {"index_type": "HNSW"}, {"attributes": None}, {"features": draw(SIZE, 3, 8)}
    for wrong in wrongs:
        with pytest.raises(ValueError, match="has other fields or another index than"):
            make(client, **{**known, **wrong})
    make(client, **known)


@pytest.mark.parametrize("name", ["\u00e9 \U0001f600", "\"q\" 'b' \\n\\", "line\r\nline\x01\t"])
def test_an_id_that_is_there_is_not_written_over(client: Any, name: str) -> None:
    index = make(client, FEATURES[:3], image_ids=["first", name, "third"])
    with pytest.raises(ValueError, match="already: remove it"):
        index.add(FEATURES[3:5], image_ids=["new", name])
    assert sorted(index.search(QUERY[:1], 4)[1].tolist()[0]) == [-1, 0, 1, 2]
    index.remove(torch.tensor([1]))
    index.add(FEATURES[3:5], image_ids=["new", name])
    assert len(index) == 5

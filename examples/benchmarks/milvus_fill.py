"""Milvus, embedded in a file or on a server: a fill after two kills against one fill, and its cost.

    OMP_NUM_THREADS=1 python examples/benchmarks/milvus_fill.py [--size 100000] [--dim 640]
        [--server http://localhost:19530]

Features are drawn. A process fills a collection and is killed after a quarter of the images, and so
is a second one; a third ends the fill. What Milvus then has (ids, positions, and a digest of
features and attributes) must equal a collection that one process has filled, and both must find
what an exact gallery finds. Seconds are the wall's, milliseconds the processor's, of one query with
k = 50.
"""

import argparse
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import torch
from measure import print_table
from pymilvus import MilvusClient
from torch import Tensor

from fusecomp.retrieval import ExactIndex, Gallery, MilvusIndex
from fusecomp.types import Index

K, QUERIES, TIMED = 50, 100, 15


def draw(rows: int, dim: int, seed: int) -> Tensor:
    """Draw features."""
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def gallery_of(uri: str, collection: str, size: int, dim: int, kill_after: int) -> Gallery:
    """Fill; the process kills itself once so many images are written."""
    torch.set_num_threads(1)
    client, written = MilvusClient(uri), 0
    upsert = client.upsert

    def counted(name: str, rows: list[dict[str, object]]) -> object:
        nonlocal written
        if kill_after and written >= kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        written += len(rows)
        return upsert(name, rows)

    client.upsert = counted
    make = partial(MilvusIndex, client=client, collection=collection)
    return drawn(size, dim, make)


def drawn(size: int, dim: int, make: Callable[..., Index]) -> Gallery:
    """Make a gallery of an index of drawn images."""
    ids, features = [f"image {row}" for row in range(size)], draw(size, dim, 0)
    kinds = {"kind": [row % 7 for row in range(size)]}
    named = {"image_ids": ids, "attributes": kinds} if make is not ExactIndex else {}
    return Gallery(ids, features, make(features, **named), attributes=kinds)


def content(gallery: Gallery) -> list[tuple[int, str, str]]:
    """Return position, id and digest of each image in Milvus."""
    found = []
    index = gallery.index
    if not isinstance(index, MilvusIndex):
        raise TypeError("expected a MilvusIndex")
    for start in range(0, len(index), 10_000):
        some = f"position >= {start} and position < {start + 10_000}"
        rows = index.collection.query(some, ["id", "position", "digest"])
        found += [(row["position"], row["id"], row["digest"]) for row in rows]
    return sorted(found)


def milliseconds(
    find: Callable[[Tensor], object], query: Tensor, clock: Callable[[], float]
) -> float:
    """The median of the milliseconds of a query."""
    times = []
    for one in query[:TIMED].split(1):
        before = clock()
        find(one)
        times.append(1e3 * (clock() - before))
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=640)
    parser.add_argument("--server", help="the address of a Milvus; none takes files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, dim, server = options.size, options.dim, options.server
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = (
            (server or str(Path(folder) / f"{name}.db"), f"{name}_{uuid4().hex}")
            for name in ("killed", "whole")
        )
        for _ in range(2):
            process = multiprocessing.get_context("spawn").Process(
                target=gallery_of, args=(*killed, size, dim, size // 4)
            )
            process.start()
            process.join()
            if process.exitcode != -signal.SIGKILL:
                raise SystemExit("the process was not killed")
        galleries = {}
        for name, place in (("one fill", whole), ("after two kills", killed), ("again", killed)):
            before = time.perf_counter()
            galleries[name] = gallery_of(*place, size, dim, 0)
            rows.append([name, f"{time.perf_counter() - before:.0f} s"])
        once, resumed = galleries["one fill"], galleries["after two kills"]
        if content(once) != content(resumed):
            raise SystemExit("the two collections differ")
        query = draw(QUERIES, dim, 1)
        exact = drawn(size, dim, ExactIndex)
        clock = time.perf_counter if server else time.process_time
        for where in (None, {"kind": [1, 5]}):
            expected = [hits.ids for hits in exact.search(query, K, where=where)]
            for gallery in (once, resumed):
                if [hits.ids for hits in gallery.search(query, K, where=where)] != expected:
                    raise SystemExit("Milvus finds other images than the exact index")
            named = "a query" + (" where two of seven kinds" if where else "")
            for kind, gallery in (("Milvus", once), ("exact", exact)):
                find = partial(gallery.search, k=K, where=where)
                took = milliseconds(find, query, clock)
                rows.append([f"{named}, {kind}", f"{took:.0f} ms"])
        if server:
            for uri, collection in (whole, killed):
                MilvusClient(uri).drop_collection(collection)
        else:
            files = (file for file in Path(whole[0]).rglob("*") if file.is_file())
            held = sum(file.stat().st_size for file in files)
            rows.append(["the file", f"{held / 2**20:.0f} MiB"])
    print_table((f"{size:,} images", "cost"), rows)


if __name__ == "__main__":
    main()

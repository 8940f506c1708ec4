"""Recall of indexes of faiss against exact search, for composed queries and for images as queries.

    OMP_NUM_THREADS=1 python examples/benchmarks/faiss_recall.py [--size 100000] [--dim 640]

Features are drawn: an image is the sum of its attributes' vectors and noise, a text names new
values of one or two attributes, and both sides have an offset of their own, as CLIP's have. A
Combiner learns to compose them. Each index is built once and searched with several parameters.
Recall is in per cent, mean and worst of 500 queries. Milliseconds are the processor's, of one query
with k = 50; seconds are those of building, on one thread too.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import faiss
import torch
from measure import print_table
from torch import Tensor

import fusecomp as fc
from fusecomp.retrieval import ExactIndex, FaissIndex

ATTRIBUTES, VALUES, NOISE, OFFSET = 8, 12, 0.7, 1.0
QUERIES, TIMED, K = 500, 100, 50
# By factory, the parameters of the search.
SETTINGS: Mapping[str, Sequence[str]] = {
    "HNSW32": ("efSearch=16", "efSearch=64", "efSearch=256", "efSearch=1024"),
    "IVF1024,Flat": ("nprobe=8", "nprobe=32", "nprobe=128", "nprobe=256"),
    "IVF1024,SQ8": ("nprobe=128",),
    "PCA128,IVF1024,SQ8,RFlat": ("nprobe=128,k_factor_rf=4", "nprobe=128,k_factor_rf=16"),
}


class World(NamedTuple):
    """Vectors of attributes [A, V, D] and the offsets [D] of both sides."""

    values: Tensor
    image_offset: Tensor
    text_offset: Tensor

    def images(self, chosen: Tensor) -> Tensor:
        """Draw features of images with these values, int64 [B, A]."""
        found: Tensor = self.values[torch.arange(ATTRIBUTES), chosen].sum(1) / ATTRIBUTES**0.5
        return found + self.image_offset + noise_like(found)

    def texts(self, old: Tensor, new: Tensor) -> Tensor:
        """Draw features of texts that name the values that are new."""
        named = self.values[torch.arange(ATTRIBUTES), new]
        changed = (old != new).unsqueeze(2)
        found: Tensor = (changed * named).sum(1) / changed.sum(1).clamp_min(1) ** 0.5
        return found + self.text_offset + noise_like(found)


def noise_like(features: Tensor) -> Tensor:
    """Draw noise whose rows are about as long as NOISE."""
    noise: Tensor = torch.randn_like(features) / features.shape[1] ** 0.5
    return NOISE * noise


def draw_world(dim: int) -> World:
    """Draw vectors whose length is about 1."""
    drawn = torch.randn(ATTRIBUTES * VALUES + 2, dim) / dim**0.5
    offsets = OFFSET * drawn[-2:]
    return World(drawn[:-2].unflatten(0, (ATTRIBUTES, VALUES)), offsets[0], offsets[1])


def draw_attributes(count: int) -> Tensor:
    """Draw values of which some are frequent, int64 [count, A]."""
    shares = 1 / torch.arange(1.0, VALUES + 1)
    return shares.multinomial(count * ATTRIBUTES, replacement=True).view(count, ATTRIBUTES)


def change(old: Tensor) -> Tensor:
    """Draw new values for one or two attributes of each row."""
    new, rows = old.clone(), torch.arange(len(old))
    for _ in range(2):
        new[rows, torch.randint(ATTRIBUTES, (len(old),))] = torch.randint(VALUES, (len(old),))
    return new


def learn(world: World, dim: int, steps: int) -> fc.Combiner:
    """Train a Combiner on drawn triplets."""
    combiner, loss = fc.Combiner(dim, projection_dim=dim, hidden_dim=dim), fc.InfoNCE(0.05)
    optimizer = torch.optim.Adam(combiner.parameters(), lr=1e-3)
    for _ in range(steps):
        old = draw_attributes(256)
        new = change(old)
        value = loss(combiner(world.images(old), world.texts(old, new)), world.images(new))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    print(f"loss after {steps} steps: {value.item():.3f}\n", flush=True)
    return combiner.eval()


def milliseconds(index: ExactIndex | FaissIndex, query: Tensor) -> float:
    """The median of the processor's milliseconds for one query."""
    times = []
    for row in range(TIMED):
        before = time.process_time()
        index.search(query[row : row + 1], K)
        times.append(1e3 * (time.process_time() - before))
    return statistics.median(times)


def rows(features: Tensor, query: Tensor, images: Tensor) -> Iterator[list[str]]:
    """Yield the rows of the table."""
    exact = ExactIndex(features)
    size = f"{features.nbytes / 2**20:.0f}"
    yield ["exact", "", *["100"] * 5, f"{milliseconds(exact, query):.2f}", "0", size]
    for factory, settings in SETTINGS.items():
        before = time.process_time()
        index = FaissIndex(features, factory=factory)
        built = f"{time.process_time() - before:.0f}"
        size = f"{index.serialize().nbytes / 2**20:.0f}"
        for parameters in settings:
            index.set_parameters(parameters)
            found = index.recall_against_exact(query, ks=(10, 50))
            shares = [value for k in (10, 50) for value in found[k]]
            shares.append(index.recall_against_exact(images, ks=(10,))[10].mean)
            took = f"{milliseconds(index, query):.2f}"
            yield [factory, parameters, *(f"{share:.0f}" for share in shares), took, built, size]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=640, help="at least 128")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    world = draw_world(options.dim)
    combiner = learn(world, options.dim, options.steps)
    features = world.images(draw_attributes(options.size))
    with torch.no_grad():
        old = draw_attributes(QUERIES)
        query = combiner(world.images(old), world.texts(old, change(old)))
    images = world.images(draw_attributes(QUERIES))
    header = ("index", "parameters", "@10", "worst", "@50", "worst", "images @10", "ms", "s", "MiB")
    print_table(header, list(rows(features, query, images)))


if __name__ == "__main__":
    main()

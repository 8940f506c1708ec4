"""A small gallery of cached features, its model and queries."""

import torch
from torch import Tensor

import fusecomp as fc

DIM, SIZE = 8, 30
IDS = [f"image {number}" for number in range(SIZE)]
COLOURS = {"colour": [("red", "blue", None)[n % 3] for n in range(SIZE)], "year": [*range(SIZE)]}
TEXTS = ["is blue", "is red"]


def make_model(fusion: fc.Fusion, key: str = "an encoder") -> fc.ComposedEncoder:
    generator = torch.Generator().manual_seed(0)
    images, texts = (3 * torch.randn(n, DIM, generator=generator) for n in (SIZE, 2))
    return fc.ComposedEncoder(fc.CachedEncoder.from_arrays(IDS, images, TEXTS, texts, key), fusion)


MODEL = make_model(fc.Sum())


def query(model: fc.ComposedEncoder = MODEL) -> Tensor:
    return model.encode_query(IDS[:2], TEXTS)

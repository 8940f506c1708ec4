"""Images, and their index in Milvus."""

from itertools import count
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from fusecomp.retrieval import MilvusIndex

WIDTH, SIZE = 16, 400
PREFIX = f"images_{uuid4().hex}_"
names = (f"{PREFIX}{number}" for number in count())


def release(path: str) -> None:
    """Close the embedded engine of a file."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(path)


def draw(rows: int, seed: int, width: int = WIDTH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    lengths = 3 * torch.rand(rows, 1, generator=generator) + 0.1
    return torch.randn(rows, width, generator=generator) * lengths


QUERY, FEATURES = draw(6, 1), draw(SIZE, 0)
IDS = [f"image {number}" for number in range(SIZE)]


def make(client: Any, features: Tensor = FEATURES, **options: Any) -> MilvusIndex:
    options = {"collection": next(names), "image_ids": IDS[: len(features)]} | options
    return MilvusIndex(features, client=client, **options)

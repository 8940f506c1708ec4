"""Many threads that use one encoder at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

THREADS, TURNS = 8, 30


def check_in_threads(encode: Callable[[list[str]], Tensor], batches: list[list[str]]) -> None:
    """Each thread must get the features that it would get alone."""
    expected = [encode(texts).detach() for texts in batches]

    def turn(number: int) -> Tensor:
        with torch.no_grad():
            return encode(batches[number % len(batches)])

    with ThreadPoolExecutor(THREADS) as pool:
        for number, features in enumerate(pool.map(turn, range(THREADS * TURNS))):
            torch.testing.assert_close(features, expected[number % len(batches)])

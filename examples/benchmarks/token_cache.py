"""Cached tokens: their bytes on disk, and the time to gather a batch.

    python examples/benchmarks/token_cache.py [--texts 10000] [--tokens 32] [--spread 16]

Texts have random lengths, at most --spread from --tokens. What tokens add to a file of features is
compared with the bytes of their unmasked values. Batches of the memory-mapped file, padded and with
their masks, are compared with a bare ``index_select`` whose indices are known before: of the same
unmasked values alone, and of as many values as the padded batch has. All are timed in turns, on the
same 20 batches.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from measure import interleaved, print_table
from torch import Tensor, nn

import fusecomp as fc
from fusecomp.types import Tokens

BATCHES = 20


class RandomTokens(nn.Module):
    """Tokens of a text that is a number and a length, such as "17 32"."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def encode_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tokens]:
        """Draw tokens, padded to the longest; the features are the first of each."""
        lengths = torch.tensor([int(text.split()[1]) for text in texts])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        values = torch.randn(*mask.shape, self.width)
        return values[:, 0], Tokens(values, mask)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Draw the features."""
        return self.encode_tokens(texts)[0]


def build(
    folder: Path, texts: Sequence[str], width: int, tokens: Sequence[str]
) -> tuple[fc.CachedEncoder, int]:
    """Features and maybe tokens in a file, mapped into memory, and its size in bytes."""
    files = {name: folder / name for name in ("a", "b")}
    for file in files.values():
        file.touch()
    rows = [fc.Triplet(text, "a", (text,), "b") for text in texts]
    data = fc.datasets.Triplets(rows, images=files, ks=(1,))
    encoder = fc.DualEncoder(nn.Identity(), RandomTokens(width), lambda path: torch.ones(width))
    path = folder / f"{'tokens' if tokens else 'features'}.safetensors"
    fc.CachedEncoder.build(encoder, data, path=path, key="k", num_workers=0, tokens=tokens)
    return fc.CachedEncoder.load(path), path.stat().st_size


def run(gather: Callable[[Tensor], object], batches: Sequence[Tensor]) -> None:
    """Gather one batch after another, and drop each."""
    for batch in batches:
        gather(batch)


def gather_times(
    cached: fc.CachedEncoder, lengths: Tensor, batch: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of a batch by way, one number a round."""
    table = cached.text.tokens
    assert table is not None
    values = table.values
    rows = [torch.randperm(len(lengths))[:batch] for _ in range(BATCHES)]
    starts = lengths.cumsum(0) - lengths
    unmasked, padded = [], []
    for of in rows:
        positions = torch.arange(int(lengths[of].max()))
        indices = starts[of, None] + positions
        unmasked.append(indices[positions < lengths[of, None]])
        padded.append(indices.flatten().clamp(max=len(values) - 1))
    bare = partial(values.index_select, 0)
    ways: dict[str, tuple[Callable[[Tensor], object], list[Tensor]]] = {
        "bare, unmasked values": (bare, unmasked),
        "bare, as many as with padding": (bare, padded),
        "encode_text_tokens": (cached.encode_text_tokens, rows),
    }
    found = interleaved({way: partial(run, *of) for way, of in ways.items()}, rounds)
    return {way: [seconds / BATCHES for seconds in times] for way, times in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=32, help="of a text, on average")
    parser.add_argument("--spread", type=int, default=16, help="how far lengths lie from it")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.manual_seed(0)
    shortest = args.tokens - args.spread
    lengths = shortest + torch.randint(0, 2 * args.spread + 1, (args.texts,))
    texts = [f"{number} {length}" for number, length in enumerate(lengths.tolist())]
    with tempfile.TemporaryDirectory() as folder:
        _, plain = build(Path(folder), texts, args.width, ())
        cached, size = build(Path(folder), texts, args.width, ["text"])
        values = int(lengths.sum()) * args.width * 4
        print(
            f"{args.texts} texts, {lengths.float().mean():.1f} tokens on average; unmasked values "
            f"{values / 1e6:.1f} MB, on disk {(size - plain) / 1e6:.1f} MB, "
            f"{(size - plain) / values:.4f} x\n"
        )
        times = gather_times(cached, lengths, args.batch, args.rounds)
    alone, padded, _ = (min(found) for found in times.values())
    rows = [
        [way, f"{1e3 * min(found):.2f}", f"{1e3 * statistics.median(found):.2f}"]
        + [f"{min(found) / first:.2f}" for first in (alone, padded)]
        for way, found in times.items()
    ]
    print_table(["a batch", "best ms", "median ms", "x first", "x second"], rows)


if __name__ == "__main__":
    main()

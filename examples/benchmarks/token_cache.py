"""Cached tokens: their bytes on disk, and the time to gather a batch.

    OMP_NUM_THREADS=1 python examples/benchmarks/token_cache.py [--tokens 32] [--spread 4 8 16]

Texts have random lengths, at most --spread from --tokens. What tokens add to a file of features is
compared with the bytes of their unmasked values. Batches of the memory-mapped file, padded and with
their masks, are compared with a bare ``index_select`` of the same unmasked values by indices that
are known before. Both are timed in turns, on the same 20 batches; the best round of each counts.
"""

import argparse
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


def gather_times(cached: fc.CachedEncoder, lengths: Tensor, batch: int, rounds: int) -> list[float]:
    """Seconds of a batch, bare and with padding and masks."""
    table = cached.text.tokens
    assert table is not None
    values = table.values
    rows = [torch.randperm(len(lengths))[:batch] for _ in range(BATCHES)]
    starts = lengths.cumsum(0) - lengths
    unmasked = []
    for of in rows:
        positions = torch.arange(int(lengths[of].max()))
        indices = starts[of, None] + positions
        unmasked.append(indices[positions < lengths[of, None]])
    ways = {
        "index_select": partial(run, partial(values.index_select, 0), unmasked),
        "encode_text_tokens": partial(run, cached.encode_text_tokens, rows),
    }
    return [min(times) / BATCHES for times in interleaved(ways, rounds).values()]


def measure(spread: int, args: argparse.Namespace) -> list[str]:
    """A row of the table."""
    lengths = args.tokens - spread + torch.randint(0, 2 * spread + 1, (args.texts,))
    texts = [f"{number} {length}" for number, length in enumerate(lengths.tolist())]
    with tempfile.TemporaryDirectory() as folder:
        _, plain = build(Path(folder), texts, args.width, ())
        cached, size = build(Path(folder), texts, args.width, ["text"])
        bare, padded = gather_times(cached, lengths, args.batch, args.rounds)
    added = (size - plain) / (int(lengths.sum()) * args.width * 4)
    return [
        f"{spread}",
        f"{1e3 * bare:.1f}",
        f"{1e3 * padded:.1f}",
        f"{padded / bare:.1f}",
        f"{added:.4f}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=32, help="of a text, on average")
    parser.add_argument(
        "--spread", type=int, nargs="+", default=[4, 8, 16], help="how far lengths lie from it"
    )
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.manual_seed(0)
    rows = [measure(spread, args) for spread in args.spread]
    print_table(["spread", "`index_select`, ms", "`encode_text_tokens`, ms", "x", "bytes, x"], rows)


if __name__ == "__main__":
    main()

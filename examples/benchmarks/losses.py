"""Losses, forward and backward, against whole matrices, bare products and other libraries.

    python examples/benchmarks/losses.py [--batch 4096 16384] [--rounds 5] [--rivals]
    python examples/benchmarks/losses.py --batch 65536 --alone --rounds 1

All ways of a table are timed in turns in one process, after a warm-up; a ratio compares the best
times. Memory is the largest growth of a fresh process above inputs and libraries, the gradients
included. --alone measures InfoNCE only. --rivals needs `pip install --group bench`.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from measure import growth, growths, interleaved
from torch import Tensor
from torch.nn import functional as F

from fusecomp.losses import HardNegativeNCE, InfoNCE, SigmoidLoss, TripletMarginLoss

DIM, SMALL = 640, 256
Loss = Callable[[Tensor, Tensor], Tensor]


def logits_of(query: Tensor, target: Tensor) -> Tensor:
    """The whole matrix at T = 0.01."""
    return F.normalize(query, dim=1) @ F.normalize(target, dim=1).T / 0.01


def whole(query: Tensor, target: Tensor) -> Tensor:
    """InfoNCE with the whole matrix."""
    return F.cross_entropy(logits_of(query, target), torch.arange(len(query)))


def whole_both_ways(query: Tensor, target: Tensor) -> Tensor:
    """The mean of both directions, from one matrix."""
    logits, labels = logits_of(query, target), torch.arange(len(query))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def two_passes(query: Tensor, target: Tensor) -> Tensor:
    """Both directions, each by itself."""
    loss = InfoNCE()
    total: Tensor = (loss(query, target) + loss(target, query)) / 2
    return total


def whole_hard_negatives(query: Tensor, target: Tensor) -> Tensor:
    """HN-NCE with the whole matrix, for beta = 0.25."""
    logits = logits_of(query, target)
    others = logits.masked_fill(torch.eye(len(query), dtype=torch.bool), -torch.inf)
    hard = (1.25 * others).logsumexp(1) - (0.25 * others).logsumexp(1)
    push = hard + torch.tensor(float(len(query) - 1)).log()
    return (torch.logaddexp(logits.diagonal(), push) - logits.diagonal()).mean()


def whole_triplets(query: Tensor, target: Tensor) -> Tensor:
    """All triplets with the whole matrix."""
    cosines = F.normalize(query, dim=1) @ F.normalize(target, dim=1).T
    hinges = (0.2 - cosines.diagonal().unsqueeze(1) + cosines).relu()
    return (hinges.sum() - hinges.diagonal().sum()) / (len(query) * (len(query) - 1))


OWN: dict[str, Loss] = {
    "whole matrix": whole,
    "InfoNCE": InfoNCE(),
    "whole matrix, both ways": whole_both_ways,
    "two passes of InfoNCE": two_passes,
    "InfoNCE, symmetric": InfoNCE(symmetric=True),
}


def supcon(query: Tensor, target: Tensor) -> Tensor:
    """pytorch-metric-learning, which with one positive a row is InfoNCE."""
    from pytorch_metric_learning import losses

    return against_targets(losses.SupConLoss(temperature=0.01), query, target)


def ntxent(query: Tensor, target: Tensor) -> Tensor:
    """pytorch-metric-learning; it makes every triple of query, positive and negative."""
    from pytorch_metric_learning import losses

    return against_targets(losses.NTXentLoss(temperature=0.01), query, target)


def triplets(query: Tensor, target: Tensor, hardest: bool = False) -> Tensor:
    """pytorch-metric-learning, with cosines and the mean over triplets."""
    from pytorch_metric_learning import distances, losses, miners, reducers

    cosine, labels = distances.CosineSimilarity(), torch.arange(len(query))
    loss = losses.TripletMarginLoss(0.2, distance=cosine, reducer=reducers.MeanReducer())
    mined = miners.BatchHardMiner(distance=cosine)(query, labels, target, labels.clone())
    return against_targets(loss, query, target, mined if hardest else None)


def against_targets(loss: Any, query: Tensor, target: Tensor, mined: Any = None) -> Tensor:
    """A loss of pytorch-metric-learning between two sides."""
    labels = torch.arange(len(query))
    # The same object given twice would take the positives out, and the loss would be 0.
    value: Tensor = loss(query, labels, mined, ref_emb=target, ref_labels=labels.clone())
    return value


def clip(query: Tensor, target: Tensor) -> Tensor:
    """open_clip's loss of both directions."""
    from open_clip.loss import ClipLoss

    value: Tensor = ClipLoss()(F.normalize(query, dim=1), F.normalize(target, dim=1), 100.0)
    return value


def siglip(query: Tensor, target: Tensor) -> Tensor:
    """open_clip's sigmoid loss, at the published start."""
    from open_clip.loss import SigLipLoss

    unit = F.normalize(query, dim=1), F.normalize(target, dim=1)
    value: Tensor = SigLipLoss()(*unit, 10.0, -10.0)
    return value


def simclr(query: Tensor, target: Tensor) -> Tensor:
    """lightly's; each side is compared with both, so its value is another."""
    from lightly.loss import NTXentLoss

    value: Tensor = NTXentLoss(temperature=0.01)(query, target)
    return value


class Rival(NamedTuple):
    """Ours and theirs on so many rows; whether the formula is the same."""

    ours: Loss
    theirs: Loss
    rows: int = 4096
    same: bool = True


RIVALS = {
    "InfoNCE, pytorch-metric-learning SupConLoss": Rival(InfoNCE(), supcon),
    "InfoNCE, pytorch-metric-learning NTXentLoss": Rival(InfoNCE(), ntxent, rows=512),
    "InfoNCE symmetric, open_clip ClipLoss": Rival(InfoNCE(symmetric=True), clip),
    "InfoNCE symmetric, lightly NTXentLoss": Rival(InfoNCE(symmetric=True), simclr, same=False),
    "SigmoidLoss, open_clip SigLipLoss": Rival(SigmoidLoss(), siglip),
    "HardNegativeNCE, whole matrix": Rival(HardNegativeNCE(0.01), whole_hard_negatives),
    "TripletMarginLoss all, whole matrix": Rival(TripletMarginLoss(0.2, "all"), whole_triplets),
    "TripletMarginLoss all, pytorch-metric-learning": Rival(
        TripletMarginLoss(0.2, "all"), triplets, rows=2048
    ),
    "TripletMarginLoss hardest, pytorch-metric-learning": Rival(
        TripletMarginLoss(0.2, "hardest"), partial(triplets, hardest=True), rows=2048
    ),
}


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    """Queries and targets that learn, somewhat alike."""
    generator = torch.Generator().manual_seed(0)
    query, target = torch.randn(2, batch, DIM, generator=generator)
    return (query + target / 16).requires_grad_(), target.requires_grad_()


def run(loss: Loss, query: Tensor, target: Tensor) -> None:
    """Forward and backward."""
    torch.autograd.grad(loss(query, target), (query, target))


def memory(name: str, batch: int, side: str | None = None) -> float:
    """Measure the memory that one way needs above its inputs, in MiB."""
    loss: Loss = OWN[name] if side is None else getattr(RIVALS[name], side)
    run(loss, *inputs(SMALL))  # warm-up
    return growth(partial(run, loss, *inputs(batch)))


def bare(batch: int) -> Callable[[], object]:
    """The three products of the loss: logits, and the gradients of both sides."""
    query, target = (side.detach() for side in inputs(batch))
    logits, gradient = torch.empty(batch, batch), torch.empty(batch, DIM)

    def products() -> None:
        torch.mm(query, target.T, out=logits)
        torch.mm(logits, target, out=gradient)
        torch.mm(logits.T, query, out=gradient)

    return products


def own_table(batch: int, rounds: int, alone: bool) -> None:
    """InfoNCE against itself with the whole matrix, and against its matrix products."""
    names = ["InfoNCE"] if alone else list(OWN)
    pair = inputs(batch)
    ways: dict[str, Callable[[], object]] = {n: partial(run, OWN[n], *pair) for n in names}
    if not alone:
        ways = {"three bare products": bare(batch), **ways}
    times = interleaved(ways, rounds)
    needed = dict(zip(names, growths(memory, *((name, batch) for name in names)), strict=True))
    flops, first = 6 * batch**2 * DIM, min(next(iter(times.values())))
    print(f"\n{batch:,} queries and targets, D = {DIM}; one way: {flops / 1e12:.2f} TFLOP")
    print(f"{'':<26} {'best s':>8} {'median s':>9} {'x first':>8} {'MiB':>7}")
    for name, seconds in times.items():
        print(
            f"{name:<26} {min(seconds):>8.3f} {statistics.median(seconds):>9.3f} "
            f"{min(seconds) / first:>8.2f} {needed.get(name, 0):>7.0f}"
        )


def rivals_table(rounds: int) -> None:
    """Losses of other libraries; a ratio above 1 says that ours needs less."""
    print(
        f"\n{'':<48} {'rows':>5} {'ms':>6} {'theirs':>7} {'x':>5} {'MiB':>5} {'theirs':>7} "
        f"{'x':>6} {'difference':>10}"
    )
    for name, (ours, theirs, batch, same) in RIVALS.items():
        pair = inputs(batch)
        try:
            value = theirs(*pair).item()
        except ImportError as error:
            print(f"{name:<48} not measured: {error}; pip install --group bench")
            continue
        difference = f"{abs(ours(*pair).item() / value - 1):>10.0e}" if same else "other"
        times = interleaved(
            {"ours": partial(run, ours, *pair), "theirs": partial(run, theirs, *pair)}, rounds
        )
        best = {side: 1e3 * min(seconds) for side, seconds in times.items()}
        needed = growths(memory, (name, batch, "ours"), (name, batch, "theirs"))
        print(
            f"{name:<48} {batch:>5} {best['ours']:>6.0f} {best['theirs']:>7.0f} "
            f"{best['theirs'] / best['ours']:>5.1f} {needed[0]:>5.0f} {needed[1]:>7.0f} "
            f"{needed[1] / needed[0]:>6.1f} {difference:>10}"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, nargs="*", default=[4096, 16384])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    parser.add_argument("--alone", action="store_true", help="InfoNCE only")
    parser.add_argument("--rivals", action="store_true", help="against other libraries")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for batch in args.batch:
        own_table(batch, args.rounds, args.alone)
    if args.rivals:
        rivals_table(args.rounds)


if __name__ == "__main__":
    main()

"""InfoNCE and SigmoidLoss on small batches, against losses written by hand and open_clip's.

    OMP_NUM_THREADS=1 python examples/benchmarks/small_batches.py [--batch 64 128 256] [--rounds 5]

Forward and backward, with gradients of both sides, and of temperature and bias where they learn.
Matrices are small here, so the number of operations decides. All ways take turns in one process,
after a warm-up; microseconds of a processor a step, the median of the rounds. open_clip needs
`pip install -e ".[clip]"`.
"""

import argparse
import statistics
import time
from functools import partial

import torch
from losses import Loss, clip, inputs, logits_of, whole, whole_both_ways
from torch import Tensor, nn
from torch.nn import functional as F

from fusecomp.losses import InfoNCE, SigmoidLoss

LOG_SCALE, BIAS = nn.Parameter(torch.tensor(2.3)), nn.Parameter(torch.tensor(-10.0))
LEARNS = (LOG_SCALE, BIAS)
# The rows of a turn.
ROWS = 10_000


def sigmoids(query: Tensor, target: Tensor) -> Tensor:
    """The sigmoid loss with the whole matrix; scale and bias learn."""
    logits = 0.01 * logits_of(query, target) * LOG_SCALE.exp() + BIAS
    signs = 2 * torch.eye(len(query)) - 1
    return -F.logsigmoid(signs * logits).sum() / len(query)


def siglip(query: Tensor, target: Tensor) -> Tensor:
    """open_clip's sigmoid loss; scale and bias learn."""
    from open_clip.loss import SigLipLoss

    unit = F.normalize(query, dim=1), F.normalize(target, dim=1)
    value: Tensor = SigLipLoss()(*unit, LOG_SCALE.exp(), BIAS)
    return value


OURS = SigmoidLoss()
# Each way, and what else it learns; every first one is ours.
GROUPS: dict[str, dict[str, tuple[Loss, tuple[Tensor, ...]]]] = {
    "InfoNCE": {"ours": (InfoNCE(), ()), "by hand": (whole, ())},
    "InfoNCE, symmetric": {
        "ours": (InfoNCE(symmetric=True), ()),
        "by hand": (whole_both_ways, ()),
        "open_clip": (clip, ()),
    },
    "SigmoidLoss": {
        "ours": (OURS, tuple(OURS.parameters())),
        "by hand": (sigmoids, LEARNS),
        "open_clip": (siglip, LEARNS),
    },
}


def timed(loss: Loss, learns: tuple[Tensor, ...], batch: int) -> float:
    """Microseconds of a processor a step, forward and backward."""
    query, target = inputs(batch)
    steps, start = ROWS // batch, time.process_time()
    for _ in range(steps):
        torch.autograd.grad(loss(query, target), (query, target, *learns))
    return 1e6 * (time.process_time() - start) / steps


def measure(batch: int, rounds: int) -> None:
    """Print a row for each loss."""
    for name, group in GROUPS.items():
        ways = {}
        for way, (loss, learns) in group.items():
            try:
                loss(*inputs(2))
            except ImportError as error:
                print(f"{way} not measured: {error}; pip install -e '.[clip]'")
                continue
            ways[way] = partial(timed, loss, learns, batch)
        turns = [{way: run() for way, run in ways.items()} for _ in range(rounds + 1)][1:]
        each = {way: statistics.median(turn[way] for turn in turns) for way in ways}
        cells = (f"{each[w]:>9.0f} {each[w] / each['ours']:>5.2f}" for w in each if w != "ours")
        print(f"{name:<20} {batch:>5} {each['ours']:>7.0f} {' '.join(cells)}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, nargs="*", default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}; microseconds a step, and how much faster ours is")
    print(f"{'':<20} {'rows':>5} {'ours':>7} {'by hand':>9} {'x':>5} {'open_clip':>9} {'x':>5}")
    for batch in args.batch:
        measure(batch, args.rounds)


if __name__ == "__main__":
    main()

"""All of stage 2 at the paper's size, from cached features, in one ``fit``.

    python examples/benchmarks/stage2_run.py --device cuda [--data-root fashionIQ_dataset]
    python examples/benchmarks/stage2_run.py --epochs 1

300 epochs of bf16 autocast over float32 weights, without validation, with one checkpoint at the
end; the second command is the check that it works on a CPU. The peak share is that of the matrix
products alone, by the whole time and by the time of a step. A step asks the device once, for the
loss and the norm of its gradient; what an epoch's names cost is what its first step takes longer.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import stage2
import torch

import fusecomp as fc

# Dense bf16, TFLOP/s, by a part of the device's name.
PEAKS = {"H200": 989.5, "H100 80GB HBM3": 989.5, "A100": 312.0}


class Clock:
    """When training began and each step ended; its value is on the host by then."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_start(self, trainer: fc.Trainer) -> None:
        """The first time."""
        self.times.append(time.perf_counter())

    def on_step(self, trainer: fc.Trainer, loss: torch.Tensor) -> None:
        """One time more."""
        self.times.append(time.perf_counter())


def peak_of(device: str) -> float | None:
    """TFLOP/s of a known device."""
    if torch.device(device).type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def main() -> None:
    """Print what the run took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, help="a FashionIQ folder, for its annotations")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--peak", type=float, help="of the device in bf16, TFLOP/s")
    args = parser.parse_args()
    peak = args.peak or peak_of(args.device)
    torch.manual_seed(0)
    train, clock = stage2.read_triplets(args.data_root), Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = stage2.make_trainer(
            train,
            args.dropout,
            args.device,
            workdir=Path(folder),
            callbacks=(clock,),
            epochs=args.epochs,
            precision="bf16",
            save_every_steps=args.epochs * len(train),  # never before the end
        )
        start = time.perf_counter()
        trainer.fit(train)
        seconds = time.perf_counter() - start
    steps = trainer.total_steps
    each = [end - begin for begin, end in zip(clock.times, clock.times[1:], strict=False)]
    an_epoch = steps // args.epochs
    first = statistics.median(each[::an_epoch])
    other = statistics.median(t for n, t in enumerate(each) if n % an_epoch)
    flops = stage2.flops_of(stage2.matrix_products())
    print(f"{args.epochs} epochs, {steps} steps, {steps * flops / 1e15:.3f} PFLOP in products")
    print(f"{seconds:.2f} s in all, {clock.times[-1] - clock.times[0]:.2f} s of them in steps")
    print(f"{1e3 * other:.2f} ms a step, {1e3 * (first - other):.1f} ms more the first of an epoch")
    if peak is None:
        print("the device's peak is unknown: give --peak for the share of it")
    else:
        shares = [flops * n / s / peak / 1e12 for n, s in ((steps, seconds), (1, other))]
        print(f"{shares[0]:.1%} of {peak} TFLOP/s in all, {shares[1]:.1%} in a step")
    if torch.device(args.device).type == "cuda":
        print(f"{torch.cuda.max_memory_allocated(args.device) / 2**30:.2f} GiB on the device")


if __name__ == "__main__":
    main()

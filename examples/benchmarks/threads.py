"""Steps a second of pretraining small encoders, by threads and by how waiting threads wait.

    python examples/benchmarks/threads.py [--seconds 20] [--busy 2]

Each way runs in a process of its own, alone and beside as many busy processes.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

from measure import print_table

EXAMPLES = Path(__file__).parents[1]
WAYS = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads, passive": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
}


def count_steps(seconds: float) -> None:
    """Print the steps a second of a batch of 128 images and sentences."""
    sys.path.insert(0, str(EXAMPLES))
    import tinyclip
    import torch

    encoders = tinyclip.TinyImageEncoder(), tinyclip.TinyTextEncoder()
    images, texts = torch.randn(128, 3, 64, 64), ["a long red dress without sleeves"] * 128
    start = time.monotonic()
    steps = -1  # the first is the warm-up
    while time.monotonic() - start < seconds:
        loss = (encoders[0](images) * encoders[1](texts)).sum()
        loss.backward()
        steps += 1
        if steps == 0:
            start = time.monotonic()
    print(max(0, steps) / (time.monotonic() - start))


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


def steps_a_second(way: dict[str, str], seconds: float, busy: int) -> float:
    """Count beside some busy processes."""
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(busy)]
    for other in others:
        other.start()
    command = [sys.executable, __file__, "--seconds", f"{seconds}", "--count"]
    try:
        done = subprocess.run(command, env=os.environ | way, capture_output=True, check=True)
    finally:
        for other in others:
            other.kill()
    return float(done.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--busy", type=int, default=2)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.count:
        count_steps(args.seconds)
        return
    rows = []
    for name, way in WAYS.items():
        alone, beside = (steps_a_second(way, args.seconds, busy) for busy in (0, args.busy))
        slower = f"{alone / beside:.1f}" if beside else "no step was done"
        rows.append([name, f"{alone:.2f}", f"{beside:.2f}", slower])
    print_table(["steps a second", "alone", f"beside {args.busy} busy", "x slower"], rows)


if __name__ == "__main__":
    main()

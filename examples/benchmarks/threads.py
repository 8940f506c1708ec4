"""Steps a second of small models, by threads and by how waiting threads wait.

    python examples/benchmarks/threads.py [--seconds 20] [--busy 2]

One step is of both small encoders on 128 images and sentences, the other of a full Combiner on 256
pairs of features. Each way runs in a process of its own, alone and beside as many busy processes.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import print_table

EXAMPLES = Path(__file__).parents[1]
WAYS = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads, passive": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
    # As two_threads.py sets it.
    "2 threads, brief waits": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "3000"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
}


def encoders() -> Callable[[], Any]:
    """Return a step of both encoders."""
    sys.path.insert(0, str(EXAMPLES))
    import tinyclip
    import torch

    image, text = tinyclip.TinyImageEncoder(), tinyclip.TinyTextEncoder()
    images, texts = torch.randn(128, 3, 64, 64), ["a long red dress without sleeves"] * 128
    return lambda: (image(images) * text(texts)).sum().backward()


def combiner() -> Callable[[], Any]:
    """Return a step of a full Combiner and its loss."""
    import torch

    import fusecomp as fc

    fusion, loss = fc.Combiner(64), fc.InfoNCE()
    image, text, target = torch.randn(3, 256, 64)
    return lambda: loss(fusion(image, text), target).backward()


STEPS = {"encoders": encoders, "Combiner": combiner}


def count_steps(step: Callable[[], Any], seconds: float) -> float:
    """Return the steps a second; the first is the warm-up."""
    step()
    start, steps = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        step()
        steps += 1
    return steps / (time.monotonic() - start)


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


def steps_a_second(name: str, way: dict[str, str], seconds: float, busy: int) -> float:
    """Count beside some busy processes."""
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(busy)]
    for other in others:
        other.start()
    command = [sys.executable, __file__, "--seconds", f"{seconds}", "--count", name]
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
    parser.add_argument("--count", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.count:
        print(count_steps(STEPS[args.count](), args.seconds))
        return
    rows = []
    for name in STEPS:
        for way, settings in WAYS.items():
            alone, beside = (
                steps_a_second(name, settings, args.seconds, busy) for busy in (0, args.busy)
            )
            slower = f"{alone / beside:.1f}" if beside else "no step was done"
            rows.append([name, way, f"{alone:.2f}", f"{beside:.2f}", slower])
    print_table(["step of", "", "alone, a second", f"beside {args.busy} busy", "x slower"], rows)


if __name__ == "__main__":
    main()

"""Measure what `import fusecomp` costs beyond torch and numpy, in fresh processes.

python examples/benchmarks/import_time.py [--rounds 10]
"""

import argparse
import statistics
import subprocess
import sys

CODE = """
import time, numpy, torch
start = time.perf_counter()
import fusecomp
print(1e3 * (time.perf_counter() - start))
"""


def main() -> None:
    """Print the median and the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="processes")
    times = []
    for _ in range(parser.parse_args().rounds + 1):
        result = subprocess.run(
            [sys.executable, "-c", CODE], check=True, capture_output=True, text=True
        )
        times.append(float(result.stdout))
    # The first may have compiled the modules.
    print(f"median {statistics.median(times[1:]):.0f} ms, best {min(times[1:]):.0f} ms")


if __name__ == "__main__":
    main()

"""Two threads for steps of small models. Import it before torch, which reads the environment once.

A step of the small encoders takes 20 to 120 ms, in hundreds of operations, after each of which
threads wait for one another. GNU's OpenMP, which torch brings on Linux, lets them spin meanwhile:
while another process has the core of one thread, the other spins for as long. Threads that sleep at
once are slower than a single one; `benchmarks/threads.py` compares the ways.
"""

import os

SPINS = "3000"  # some 0.1 ms; then a waiting thread sleeps

if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = SPINS


def limit_threads() -> None:
    """Compute on two threads, however many cores there are, unless OMP_NUM_THREADS says a number.

    Another number rounds differently, so the scores would depend on the machine.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(2)

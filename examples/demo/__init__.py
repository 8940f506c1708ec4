"""A page to search on, in rounds: serve.py starts it, docs/demo.md explains it."""

import os

# NumPy's product of one query takes all cores, whose threads spin while they wait for a core: with
# two searches at once a round then costs up to twice the CPU time. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))

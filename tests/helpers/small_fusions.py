"""A small one of every fusion."""

from collections.abc import Callable

from torch import nn
from toy import DIM

from fusecomp import fusions

__all__ = ["BY_SIMILARITY", "DIM", "MAKE", "TEXT_DIM"]

# The width of texts of a fusion that takes two.
TEXT_DIM = 4

# How small ones of each are made: the class, and where one of it is not enough, how it differs.
MAKE: dict[str, Callable[[], nn.Module]] = {
    "ARTEMIS": lambda: fusions.ARTEMIS(DIM),
    "ARTEMIS, IS": lambda: fusions.ARTEMIS(DIM, ["IS"]),
    "ARTEMIS, two widths": lambda: fusions.ARTEMIS(DIM, text_dim=TEXT_DIM),
    "CIRPLANT": lambda: fusions.CIRPLANT(DIM, heads=2, max_tokens=1),
    "CIRPLANT, no dropout": lambda: fusions.CIRPLANT(DIM, 1, 3, dropout=0.0),
    "CIRPLANT, two widths": lambda: fusions.CIRPLANT(DIM, 1, 3, TEXT_DIM, hidden_dim=5),
    "Combiner": lambda: fusions.Combiner(DIM, projection_dim=5, hidden_dim=7),
    "Concat": lambda: fusions.Concat(DIM),
    "Concat, two widths": lambda: fusions.Concat(DIM, TEXT_DIM),
    "ConvexGate": lambda: fusions.ConvexGate(DIM),
    "Direction": lambda: fusions.Direction([3.0, -1.0, 0.5, 0.25, 0.0, 2.0], 1.25, 0.5),
    "MUTAN": lambda: fusions.MUTAN(DIM, rank=2, width=5),
    "MUTAN, normalised": lambda: fusions.MUTAN(DIM, normalize=True),
    "MUTAN, two widths": lambda: fusions.MUTAN(DIM, TEXT_DIM),
    "RTIC": lambda: fusions.RTIC(DIM),
    "RTIC, two widths": lambda: fusions.RTIC(DIM, TEXT_DIM, blocks=1),
    "Slerp": lambda: fusions.Slerp(weight=0.25),
    "Sum": lambda: fusions.Sum(),
    "TIRG": lambda: fusions.TIRG(DIM),
    "TIRG, two widths": lambda: fusions.TIRG(DIM, TEXT_DIM),
    "WeightedSum": lambda: fusions.WeightedSum(weight=0.25),
    "WeightedSum, learned": lambda: fusions.WeightedSum(weight=0.25, learned=True),
    "WeightedSum, raw": lambda: fusions.WeightedSum(weight=0.25, normalize=False),
}
# Those whose queries are compared by a similarity of their own, not by the cosine.
BY_SIMILARITY = [name for name in MAKE if name.partition(",")[0] == "ARTEMIS"]

"""Intervals over seeds, each of which is an experiment of its own."""

import statistics
from collections.abc import Sequence

# Student's t: 95 % of the means of 2, 3, ... numbers lie within as many standard errors.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def student(each: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of 2 or more numbers; of more than 10, a wider one."""
    factor = STUDENT[min(len(each), 10) - 2]
    half = factor * statistics.stdev(each) / len(each) ** 0.5
    return statistics.fmean(each) - half, statistics.fmean(each) + half

"""Published scores as printed, one line of ``published.csv`` each.

A mark names numbers that were read in a secondary list whose arithmetic agrees. A number that no
source prints is absent, also where it could be computed.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

_SYSTEM = itemgetter("dataset", "split", "system", "source", "protocol")


class Published(NamedTuple):
    """One row of a published table: metrics in per cent, under the names of ``evaluate``."""

    name: str
    source: str
    protocol: Mapping[str, str]
    metrics: Mapping[str, float]
    unstated: Sequence[str] = ()  # options that the source does not state
    secondary: Sequence[str] = ()  # metrics that were read in a secondary list
    notes: Sequence[str] = ()


def published_rows() -> Iterator[Published]:
    """Read all published rows."""
    text = resources.files("fusecomp.report").joinpath("published.csv").read_text("utf-8")
    for (dataset, split, system, source, protocol), group in groupby(
        csv.DictReader(text.splitlines()), _SYSTEM
    ):
        lines = [{**line, "name": f"{line['task']}/{line['metric']}".strip("/")} for line in group]
        options = dict(option.split(" ", 1) for option in protocol.split(", "))
        stated = {name: value for name, value in options.items() if value != "not stated"}
        yield Published(
            system,
            source,
            {"dataset": dataset, "split": split, **stated},
            {line["name"]: float(line["value"]) for line in lines},
            unstated=[name for name in options if name not in stated],
            secondary=[line["name"] for line in lines if line["mark"] == "secondary list"],
            notes=[line["note"] for line in lines if line["note"]],
        )

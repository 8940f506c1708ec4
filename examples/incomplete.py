"""Datasets whose folder lacks images, for the examples."""

from pathlib import Path
from typing import TypeVar

import fusecomp as fc
from fusecomp import distributed

Data = TypeVar("Data", bound=fc.datasets.FashionIQ | fc.datasets.CIRR)


def leave_out_bad_images(root: Path, datasets: dict[str, Data]) -> list[Data]:
    """The datasets by split without what needs a missing or broken image; says what goes.

    Every image is decoded for it, as one that is broken inside would stop a training later. Of
    many processes the first decodes.
    """
    readers = {type(data) for data in datasets.values()}
    with distributed.first_alone() as first:
        found = readers.pop().verify(root, decode=True).bad_images if first else ()
    bad = frozenset(distributed.gather_objects(found)[0])
    reduced = []
    for split, data in datasets.items():
        gone = [image_id for image_id in data.image_ids if image_id in bad]
        rest: Data = fc.datasets.drop_images(data, gone)  # type: ignore[assignment]  # it acts as one
        names = f", the first: {', '.join(gone[:5])}" if gone else ""
        print(
            f"{len(gone):,} of {len(data.image_ids):,} images of {split} are missing or broken, "
            f"{len(data) - len(rest):,} of {len(data):,} triplets are left out{names}"
        )
        reduced.append(rest)
    return reduced

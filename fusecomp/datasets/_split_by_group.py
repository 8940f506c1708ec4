from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from fusecomp._core.checks import list_of, number, ordered, shown, whole_number
from fusecomp.types import Triplet


def split_by_group(
    triplets: Sequence[Triplet], fractions: Sequence[float], seed: int = 0
) -> list[list[Triplet]]:
    """Split triplets at random so that no image and no group is in two splits.

    Triplets that share an image, or whose groups do, stay together, also by way of others; whole
    families of them are dealt out in random order, each to the split that lacks most.

    Args:
        triplets: what is split; each split keeps their order.
        fractions: the share of each split, above 0; their sum is 1.
        seed: another seed gives another split, the same seed the same one.

    Returns:
        A list of triplets for each fraction, near it as far as the families allow.

    Raises:
        ValueError: if an argument is not as above, or a split gets no triplet as too many hang
            together.

    Example:
        >>> pairs = [("a", "b"), ("b", "c"), ("d", "e"), ("f", "g")]
        >>> rows = [Triplet(x + y, x, ("is red",), target_id=y) for x, y in pairs]
        >>> train, val = split_by_group(rows, (0.75, 0.25))
        >>> [row.query_id for row in train], [row.query_id for row in val]
        (['ab', 'bc', 'fg'], ['de'])
    """
    listed: list[Triplet] = list_of("triplets", triplets, Triplet, "triplets")
    shares = [number("each of fractions", f, 0) for f in ordered("fractions", fractions, "numbers")]
    if not shares or min(shares) == 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"fractions must be above 0 and sum to 1, got {shown(fractions)}")
    families = _families(listed)
    counts = [0] * len(shares)
    split_of: dict[int, int] = {}
    order = np.random.default_rng(whole_number("seed", seed, 0)).permutation(len(families))
    for family in (families[row] for row in order.tolist()):
        lacking = [share * len(listed) - count for share, count in zip(shares, counts, strict=True)]
        split = lacking.index(max(lacking))
        counts[split] += len(family)
        split_of |= dict.fromkeys(family, split)
    if 0 in counts:
        largest = max(map(len, families), default=0)
        raise ValueError(
            f"split {counts.index(0)} of fractions {shown(fractions)} gets no triplet: the "
            f"{len(listed)} triplets are {len(families)} families that share images, the largest "
            f"of {largest}; ask for fewer splits"
        )
    return [
        [triplet for row, triplet in enumerate(listed) if split_of[row] == split]
        for split in range(len(shares))
    ]


def _families(triplets: Iterable[Triplet]) -> list[list[int]]:
    """Return the rows that share images, also by way of others, in order of the first row."""
    parent: dict[str, str] = {}

    def root_of(image_id: str) -> str:
        root = image_id
        while parent.setdefault(root, root) != root:
            root = parent[root]
        # Later searches take the short way.
        while parent[image_id] != root:
            parent[image_id], image_id = root, parent[image_id]
        return root

    triplets = list(triplets)
    for triplet in triplets:
        named = (*triplet.image_ids, *triplet.other_target_ids, *(triplet.group or ()))
        for image_id in named:
            parent[root_of(image_id)] = root_of(triplet.reference_id)
    families: dict[str, list[int]] = defaultdict(list)
    for row, triplet in enumerate(triplets):
        families[root_of(triplet.reference_id)].append(row)
    return list(families.values())

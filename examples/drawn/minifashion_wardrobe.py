"""The garments of MiniFashion: how common each attribute is, a shop's stock, and pairs of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from drawn.common import RGB


class Garment(NamedTuple):
    """What an image shows; `accent` is empty where the pattern is plain."""

    category: str
    colour: str
    accent: str
    pattern: str
    sleeves: str
    length: str
    neck: str
    fit: str
    extra: str


COLOURS: dict[str, RGB] = {
    "black": (32, 32, 36),
    "white": (240, 240, 236),
    "grey": (138, 140, 144),
    "red": (196, 36, 44),
    "pink": (238, 142, 176),
    "orange": (238, 132, 44),
    "yellow": (240, 212, 72),
    "green": (52, 142, 76),
    "blue": (58, 112, 204),
    "navy": (34, 44, 98),
    "purple": (124, 66, 158),
    "brown": (122, 82, 54),
}
NEUTRAL = ("black", "white", "grey", "navy", "brown")
PATTERNS = ("plain", "stripes", "pinstripes", "dots", "checks", "flowers")
PRINTS = ("heart", "star", "logo", "writing")
EXTRAS = {"dress": "belt", "shirt": "buttons", "toptee": "ruffles"}
RARITY: dict[str, tuple[Sequence[str], Sequence[float]]] = {  # values and how common they are
    "colour": (tuple(COLOURS), (17, 13, 10, 10, 8, 5, 5, 8, 11, 6, 4, 3)),
    "pattern": ((*PATTERNS, *PRINTS), (34, 12, 8, 10, 9, 10, 4, 4, 4, 5)),
    "sleeves": (("none", "short", "long"), (33, 38, 29)),
    "length": (("short", "medium", "long"), (33, 37, 30)),
    "neck": (("round", "v", "collar"), (50, 27, 23)),
    "fit": (("fitted", "loose"), (50, 50)),
    "extra": (("", "extra"), (70, 30)),
}
SLEEVE_RARITY = {"dress": (50, 30, 20), "shirt": (10, 52, 38), "toptee": (38, 40, 22)}


def draw_value(rng: Generator, attribute: str, category: str) -> str:
    """A value of an attribute, as common as the tables say."""
    values, counts = RARITY[attribute]
    shares = np.array(SLEEVE_RARITY[category] if attribute == "sleeves" else counts, dtype=float)
    value = values[int(rng.choice(len(values), p=shares / shares.sum()))]
    return EXTRAS[category] if value == "extra" else value


def with_accent(rng: Generator, garment: Garment) -> Garment:
    """Gives a patterned garment a second colour that can be seen, and a plain one none."""
    accent = garment.accent if garment.pattern != "plain" else ""
    while garment.pattern != "plain" and (not accent or not differ(accent, garment.colour)):
        accent = draw_value(rng, "colour", garment.category)
    return garment._replace(accent=accent)


def differ(one: str, other: str) -> bool:
    """Whether two colours can be told apart on cloth."""
    return sum(abs(a - b) for a, b in zip(COLOURS[one], COLOURS[other], strict=True)) > 110


def wardrobe(rng: Generator, category: str, size: int) -> list[Garment]:
    """A shop's stock: new garments, and variants of them with up to three attributes redrawn."""
    stock: list[Garment] = []
    names = [*RARITY, "accent"]
    for _ in range(size):
        if not stock or rng.random() < 0.4:
            garment = Garment(category, *[""] * 8)
            redrawn = names
        else:
            garment = stock[int(rng.integers(len(stock)))]
            redrawn = [*rng.choice(names, size=int(rng.integers(1, 4)), replace=False)]
        values = {n: "" if n == "accent" else draw_value(rng, n, category) for n in redrawn}
        stock.append(with_accent(rng, garment._replace(**values)))
    return stock


def draw_pairs(rng: Generator, stock: Sequence[Garment], count: int) -> list[tuple[int, int]]:
    """Distinct pairs (reference, target) that mostly differ in one to three attributes."""
    used = rng.permutation(len(stock))[: int(0.85 * len(stock))]  # the others are in no triplet
    # Numbers instead of words, [stock, attributes], are compared ten times faster.
    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in np.array(stock).T], 1)
    accent = Garment._fields.index("accent")
    patterned = np.array([garment.accent != "" for garment in stock])
    pairs: dict[tuple[int, int], None] = {}
    for _ in range(50 * count + 1):
        if len(pairs) == count:
            return list(pairs)
        reference = int(rng.choice(used))
        differs = codes[used] != codes[reference]
        differs[:, accent] &= patterned[used] & patterned[reference]
        distance = differs.sum(1)
        wanted = rng.choice([1, 2, 3, 4, 5], p=[0.22, 0.36, 0.28, 0.09, 0.05])
        targets = used[distance == wanted]
        if len(targets):
            pairs[reference, int(rng.choice(targets))] = None
    raise ValueError(f"{len(stock)} images hold fewer than {count} pairs; ask for more images")

"""The words of MiniCIRR: toys, places and grounds as people name them.

A phrase says nothing of a toy but what holds, and its number is that of the toys it holds for.
"""

from collections.abc import Callable, Sequence

from numpy.random import Generator

from drawn.common import choose, with_article
from drawn.minicirr_scenes import Scene, Toy

About = dict[str, str | int]  # what a phrase says of a toy: values by the names of Toy's fields

NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
NOUNS = {  # singular and plural
    "ball": (("ball", "balls"), ("ball", "balls"), ("circle", "circles")),
    "box": (("box", "boxes"), ("box", "boxes"), ("square", "squares")),
    "star": (("star", "stars"),),
    "heart": (("heart", "hearts"),),
    "ring": (("ring", "rings"), ("ring", "rings"), ("donut", "donuts")),
    "tree": (("tree", "trees"), ("tree", "trees"), ("pine", "pines")),
    "house": (("house", "houses"), ("house", "houses"), ("hut", "huts")),
    "fish": (("fish", "fish"),),
}
ADJECTIVES: dict[str, tuple[str, ...]] = {  # other values stand for themselves
    "grey": ("grey", "gray"),
    "purple": ("purple", "violet"),
    "spotted": ("spotted", "dotted"),
    "small": ("small", "small", "little", "tiny"),
    "big": ("big", "big", "large"),
}
PATTERNS = {"striped": "stripes", "spotted": "dots"}
COLUMNS = ("left", "", "right")
ROWS = ("top", "", "bottom")
ON: dict[str, tuple[str, ...]] = {
    "grass": ("on grass", "on the grass", "on a lawn"),
    "snow": ("on snow", "in the snow"),
    "sand": ("on sand", "on the beach"),
    "water": ("in the water", "on the water"),
    "wood": ("on a wooden table", "on a wooden floor", "on wood"),
    "bricks": ("in front of a brick wall", "against a brick wall"),
    "night": ("at night", "in the dark", "against the night sky"),
    "carpet": ("on a carpet", "on a rug"),
}
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "grass": ("grass", "a lawn"),
    "snow": ("snow",),
    "sand": ("sand", "a beach"),
    "water": ("water",),
    "wood": ("wood", "a wooden floor"),
    "bricks": ("bricks", "a brick wall"),
    "night": ("the night sky",),
    "carpet": ("a carpet", "a rug"),
}
NAMED = {"colour": 0.55, "texture": 0.3, "size": 0.25, "place": 0.2}  # how often, with a new toy


def word(rng: Generator, value: str | int) -> str:
    """One of the words for a colour, a texture or a size."""
    return choose(rng, ADJECTIVES.get(str(value), (str(value),)))


def place_words(column: str | int | None, row: str | int | None) -> str:
    """Where a toy stands, as far as it is told."""
    across = COLUMNS[int(column)] if column is not None else ""
    down = ROWS[int(row)] if row is not None else ""
    if across and down:
        return f" in the {down} {across} corner"
    if across:
        return f" on the {across}"
    if down:
        return f" at the {down}"
    return " in the middle" if column is not None and row is not None else ""


def noun(rng: Generator, about: About, count: int) -> str:
    """Such as "small red ball with stripes on the left", without article or number."""
    words = [word(rng, about[field]) for field in ("size", "colour") if field in about]
    texture, tail = about.get("texture"), ""
    if texture in PATTERNS and rng.random() < 0.4:
        tail = f" with {PATTERNS[str(texture)]}"
    elif texture is not None:
        words.insert(len(words) - ("colour" in about), word(rng, texture))
    words.append(choose_noun(rng, str(about["kind"]), count))
    return " ".join(words) + tail + place_words(about.get("column"), about.get("row"))


def choose_noun(rng: Generator, kind: str, count: int) -> str:
    """One of the words for a kind of toy."""
    forms = NOUNS[kind]
    return forms[int(rng.integers(len(forms)))][count != 1]


def counted(rng: Generator, about: About, count: int) -> str:
    """The noun with its number or article."""
    phrase = noun(rng, about, count)
    if count == 1 and rng.random() < 0.85:
        return with_article(phrase)
    return f"{NUMBERS[count]} {phrase}"


def place_of(rng: Generator, toy: Toy) -> About:
    """A place as people name it: a side, a corner or the middle."""
    sides: dict[str, str | int] = {
        field: getattr(toy, field) for field in ("column", "row") if getattr(toy, field) != 1
    }
    if not sides:
        return {"column": 1, "row": 1}
    if len(sides) == 2 and rng.random() < 0.6:
        sides.pop(choose(rng, tuple(sides)))
    return sides


def describe(rng: Generator, toy: Toy, holds: Callable[[About], bool], rate: float = 1.0) -> About:
    """A toy's kind and some of its other attributes, none more than what `holds`."""
    about: About = {"kind": toy.kind}
    for field in rng.permutation(list(NAMED)):
        more = place_of(rng, toy) if field == "place" else {str(field): getattr(toy, field)}
        rare = 0.3 if more.get("texture") == "plain" else 1.0
        if rng.random() < rate * rare * NAMED[field] and holds(about | more):
            about |= more
    return about


def listed(phrases: Sequence[str]) -> str:
    """One phrase, "a and b", or "a, b and c"."""
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last


def image(rng: Generator, scene: Scene, kinds: Sequence[str], rate: float) -> str:
    """What the scene shows of these kinds: "two red balls and a fish"."""
    phrases = []
    for kind in kinds:
        starts: list[About] = [{"kind": kind}]
        colours = dict.fromkeys(toy.colour for toy in scene.having(kind=kind))
        if len(colours) > 1 and rng.random() < 0.6:
            starts = [{"kind": kind, "colour": colour} for colour in colours]
        for start in starts:
            toys = scene.having(**start)

            def all_of_them(about: About, start: About = start, count: int = len(toys)) -> bool:
                return len(scene.having(**(start | about))) == count

            about = start | describe(rng, toys[0], all_of_them, rate)
            phrases.append(counted(rng, about, len(toys)))
    return listed(phrases)

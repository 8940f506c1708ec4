"""The captions of MiniCIRR are true of their scenes, says a reader that knows only the scenes.

It shares nothing with what writes the captions: its words, its grammar and its counting stand here
once more. What it cannot read is an error, and what reads in two ways must be true in both.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from drawn.minicirr import PAIRS
from drawn.minicirr_captions import write_caption, write_description
from drawn.minicirr_scenes import Scene, new_group

About = dict[str, Any]

COUNTS = {"a": 1, "an": 1, "no": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
KINDS = {
    "ball": "ball balls circle circles",
    "box": "box boxes square squares",
    "star": "star stars",
    "heart": "heart hearts",
    "ring": "ring rings donut donuts",
    "tree": "tree trees pine pines",
    "house": "house houses hut huts",
    "fish": "fish",
}
VALUES = {
    "colour": {
        **{c: c for c in ("red", "blue", "yellow", "green", "white", "black", "orange", "pink")},
        **dict.fromkeys(("grey", "gray"), "grey"),
        **dict.fromkeys(("purple", "violet"), "purple"),
    },
    "texture": {"plain": "plain", "striped": "striped", "spotted": "spotted", "dotted": "spotted"},
    "size": {"small": "small", "little": "small", "tiny": "small", "big": "big", "large": "big"},
}
PATTERNS = {"stripes": "striped", "dots": "spotted", "no pattern": "plain"}
PLACES: dict[str, About] = {
    "on the left": {"column": 0},
    "on the right": {"column": 2},
    "at the top": {"row": 0},
    "at the bottom": {"row": 2},
    "in the middle": {"column": 1, "row": 1},
    "in the top left corner": {"column": 0, "row": 0},
    "in the top right corner": {"column": 2, "row": 0},
    "in the bottom left corner": {"column": 0, "row": 2},
    "in the bottom right corner": {"column": 2, "row": 2},
}
GROUNDS = {
    "grass": ("on grass", "on the grass", "on a lawn", "grass", "a lawn"),
    "snow": ("on snow", "in the snow", "snow"),
    "sand": ("on sand", "on the beach", "sand", "a beach"),
    "water": ("in the water", "on the water", "water"),
    "wood": ("on a wooden table", "on a wooden floor", "on wood", "wood", "a wooden floor"),
    "bricks": ("in front of a brick wall", "against a brick wall", "bricks", "a brick wall"),
    "night": ("at night", "in the dark", "against the night sky", "the night sky"),
    "carpet": ("on a carpet", "on a rug", "a carpet", "a rug"),
}
NOUNS = {noun: kind for kind, nouns in KINDS.items() for noun in nouns.split()}
ADJECTIVES = {word: {field: v} for field, words in VALUES.items() for word, v in words.items()}
BACKGROUNDS = {words: ground for ground, names in GROUNDS.items() for words in names}


def any_of(words: Mapping[str, Any]) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


NOUN, VALUE, COUNT = any_of(NOUNS), any_of(ADJECTIVES), any_of(COUNTS)
PLACE, GROUND = any_of(PLACES), any_of(BACKGROUNDS)
PHRASE = rf"(?:{VALUE} )*{NOUN}(?: with (?:stripes|dots))?(?: {PLACE})?"
SYMBOLS = {"N": NOUN, "V": VALUE, "C": COUNT, "P": PHRASE, "L": PLACE, "G": GROUND}


def read_phrase(phrase: str) -> About:
    about: About = {}
    for place, meaning in PLACES.items():
        if phrase.endswith(f" {place}"):
            about, phrase = dict(meaning), phrase.removesuffix(f" {place}")
    for pattern in ("stripes", "dots"):
        if phrase.endswith(f" with {pattern}"):
            about["texture"] = PATTERNS[pattern]
            phrase = phrase.removesuffix(f" with {pattern}")
    *words, noun = phrase.split()
    for word in words:
        assert not set(ADJECTIVES[word]) & set(about), f"said twice: {phrase}"
        about |= ADJECTIVES[word]
    return about | {"kind": NOUNS[noun]}


def kind_of(phrase: str) -> str:
    return str(read_phrase(phrase)["kind"])


def number(scene: Scene, about: About) -> int:
    return sum(all(toy._asdict()[f] == v for f, v in about.items()) for toy in scene.toys)


class Pair:
    """Counts of what is said of two scenes."""

    def __init__(self, old: Scene, new: Scene) -> None:
        self.old, self.new = old, new

    def was(self, phrase: str, **more: Any) -> int:
        return number(self.old, read_phrase(phrase) | more)

    def is_(self, phrase: str, **more: Any) -> int:
        return number(self.new, read_phrase(phrase) | more)

    def gain(self, phrase: str, **more: Any) -> int:
        return self.is_(phrase, **more) - self.was(phrase, **more)

    def shift(self, noun: str) -> tuple[int, int]:
        """How far the only toy of a kind went right and down; nowhere, where it is not one."""
        places = [
            [(toy.column, toy.row) for toy in scene.toys if toy.kind == NOUNS[noun]]
            for scene in (self.old, self.new)
        ]
        if [len(place) for place in places] != [1, 1]:
            return 0, 0
        ((left, top),), ((right, bottom),) = places
        return right - left, bottom - top

    def all_became(self, noun: str, new: About, old: About | None = None) -> bool:
        """All toys of a kind look so now, as many as there were; not before, or `old` then."""
        count = self.was(noun)
        before = self.was(noun, **(old or new))
        fits = before == count if old else before < count
        return count == self.is_(noun) == self.is_(noun, **new) and fits

    def some_became(self, phrase: str, value: str) -> bool:
        """The toys of the phrase, or all of the kind, look so now."""
        said, new = read_phrase(phrase), ADJECTIVES[value]
        if not set(said) & set(new):
            return self.all_became(phrase, new)
        count, kind = number(self.old, said), kind_of(phrase)
        gone = number(self.new, said) == 0
        return count > 0 and gone and self.gain(kind, **new) == count and self.gain(kind) == 0

    def beside(self, scene: Scene, one: str, way: str, other: str) -> bool:
        index = 0 if way == "to the left of" else 1
        places = [
            [(toy.column, toy.row)[index] for toy in scene.toys if toy.kind == NOUNS[noun]]
            for noun in (one, other)
        ]
        return any(a < b for a in places[0] for b in places[1])


Check = Callable[..., bool]
SIZES = {"bigger": "big", "larger": "big", "smaller": "small"}
WAYS = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}
SIDES = {"left": ("column", 0), "right": ("column", 2), "top": ("row", 0), "bottom": ("row", 2)}


def grew(pair: Pair, noun: str, than: str) -> bool:
    sizes = ("big", "small") if SIZES[than] == "big" else ("small", "big")
    return pair.all_became(noun, {"size": sizes[0]}, {"size": sizes[1]})


def became(pair: Pair, noun: str, new: str, old: str) -> bool:
    return pair.all_became(noun, ADJECTIVES[new], ADJECTIVES[old])


def replaced(pair: Pair, old: str, count: str, new: str) -> bool:
    swapped = (pair.was(old), pair.is_(old), pair.was(new), pair.is_(new))
    return swapped == (1, 0, 0, 1) == (1, 0, 0, COUNTS[count])


def moved_to(pair: Pair, noun: str, place: str) -> bool:
    return pair.shift(noun) != (0, 0) and pair.is_(noun, **PLACES[place]) == 1


def went(pair: Pair, noun: str, way: str) -> bool:
    index, sign = WAYS[way]
    return pair.shift(noun)[index] * sign > 0


def reached(pair: Pair, noun: str, side: str) -> bool:
    field, end = SIDES[side]
    return pair.shift(noun)[field == "row"] != 0 and pair.is_(noun, **{field: end}) == 1


def now_beside(pair: Pair, one: str, way: str, other: str) -> bool:
    single = pair.is_(one) == pair.is_(other) == 1
    return (
        single
        and pair.beside(pair.new, one, way, other)
        and not pair.beside(pair.old, one, way, other)
    )


def on(pair: Pair, ground: str) -> bool:
    return pair.old.ground != pair.new.ground == BACKGROUNDS[ground]


def none_left(pair: Pair, phrase: str) -> bool:
    return pair.was(phrase) > 0 and pair.is_(phrase) == 0


def totals(pair: Pair) -> int:
    return len(pair.new.toys) - len(pair.old.toys)


RULES: dict[str, Check] = {  # capital letters are SYMBOLS, a dash before one: not captured
    # what was added
    "(?:add|include) (C) (P)": lambda p, c, x: p.gain(x) == COUNTS[c],
    "there (?:is|are) also (C) (P)": lambda p, c, x: p.gain(x) == COUNTS[c],
    "(C) (P) (?:is|are) added": lambda p, c, x: p.gain(x) == COUNTS[c],
    "(?:add another|one more) (P)": lambda p, x: p.gain(x) == 1 and p.was(kind_of(x)) > 0,
    "must have (C) (P)": lambda p, c, x: p.is_(x) == COUNTS[c] and p.was(x) == 0,
    "more (N)": lambda p, x: p.gain(x) > 0 and p.was(x) > 0,
    "(C) (N) instead of (C)": lambda p, c, x, d: (p.is_(x), p.was(x)) == (COUNTS[c], COUNTS[d]),
    "(C) instead of (C) (N)": lambda p, c, d, x: (p.is_(x), p.was(x)) == (COUNTS[c], COUNTS[d]),
    # what was removed
    "(?:(?:remove|take away|without) the) (P)": none_left,
    "the (P) (?:is|are) gone": none_left,
    "(?:there are )?no (N)": none_left,
    "remove (C) of the (N)": lambda p, c, x: p.gain(x) == -COUNTS[c] and p.is_(x) > 0,
    "(?:fewer|less) (N)": lambda p, x: p.gain(x) < 0 < p.is_(x),
    "only (C) (N) left": lambda p, c, x: p.was(x) > p.is_(x) == COUNTS[c],
    # what was replaced
    "(?:replace|change|turn) the (N) (?:with|to|into) (C) (P)": replaced,
    "(C) (P) instead of the (N)": lambda p, c, x, old: replaced(p, old, c, x),
    # what looks different
    "make the (P) (V)": Pair.some_became,
    "make (C) of the (N) (V)": lambda p, c, x, v: (
        p.gain(x) == 0 and p.gain(x, **ADJECTIVES[v]) == COUNTS[c]
    ),
    "the (N) (?:is|are) (V)": Pair.some_became,
    "(V) (N)": lambda p, v, x: p.some_became(x, v),
    "(V) (N) instead of (V)": lambda p, v, x, old: became(p, x, v, old),
    "the (N) (?:is|are) (V) and not (V)": became,
    "change the (N) to (V)": Pair.some_became,
    "change the (N) from (V) to (V)": lambda p, x, old, v: became(p, x, v, old),
    "the color of the (N) has changed from (V) to (V)": lambda p, x, old, v: became(p, x, v, old),
    "the (N) now (?:has|have) (stripes|dots|no pattern)": lambda p, x, v: p.all_became(
        x, {"texture": PATTERNS[v]}
    ),
    "make the (N) (bigger|larger|smaller)": grew,
    "the (N) (?:is|are) (bigger|larger|smaller)": grew,
    "(bigger|larger|smaller) (N)": lambda p, than, x: grew(p, x, than),
    # what stands elsewhere
    "move the (N) (left|right|up|down)": went,
    "move the (N) to the (left|right|top|bottom)": reached,
    "(?:put )?the (N) (?:is now )?(L)": moved_to,
    "(?:put )?the (N) (?:is )?(to the left of|above) the (N)": now_beside,
    # all of it
    "change the background to (G)": on,
    "(?:put (?:it|them|everything) )?(G)": on,
    "(G) instead of (G)": lambda p, new, old: on(p, new) and p.old.ground == BACKGROUNDS[old],
    "different background": lambda p: p.old.ground != p.new.ground,
    "the same things (G)": lambda p, g: on(p, g) and p.old.toys == p.new.toys,
    "more (?:things|objects|items)": lambda p: totals(p) > 0,
    "(?:fewer|less) (?:things|objects|items)": lambda p: totals(p) < 0,
    # what the target shows
    "(C) (P)": lambda p, c, x: p.is_(x) == COUNTS[c],
    "(C) (P) (G)": lambda p, c, x, g: p.is_(x) == COUNTS[c] and p.new.ground == BACKGROUNDS[g],
}
GRAMMAR = [
    (re.compile(re.sub(r"\b[NVCPLG]\b", lambda m: SYMBOLS[m[0]], rule)), check)
    for rule, check in RULES.items()
]
FRAMES = (
    "show ",
    "shows ",
    "the target photo has ",
    "change to ",
    "unlike the reference image, i want the target image to show ",
    "i want to see ",
)


def readings(caption: str) -> Iterator[list[tuple[Check, Sequence[str]]]]:
    """Every way to cut a caption into clauses."""
    for rule, check in GRAMMAR:
        if match := rule.fullmatch(caption):
            yield [(check, match.groups())]
    for joint in re.finditer(r" and |, ", caption):
        head, tail = caption[: joint.start()], caption[joint.end() :]
        first = [
            (check, match.groups()) for rule, check in GRAMMAR if (match := rule.fullmatch(head))
        ]
        if first:
            for rest in readings(tail):
                for clause in first:
                    yield [clause, *rest]


def true(caption: str, old: Scene, new: Scene) -> bool:
    """Whether every reading of a caption is true of two scenes; there must be one."""
    for frame in FRAMES:
        caption = caption.removeprefix(frame)
    text = re.sub(rf"^only (?!{COUNT} {NOUN} left\b)", "", caption)
    found = list(readings(text))
    assert found, f"cannot be read: {caption}"
    if text != caption:  # what it names is all there is
        for reading in found:
            if sum(COUNTS[groups[0]] for _, groups in reading) != len(new.toys):
                return False
    pair = Pair(old, new)
    return all(check(pair, *groups) for reading in found for check, groups in reading)


Told = list[tuple[str, Scene, Scene]]


@pytest.fixture(scope="module")
def told() -> Told:
    """Captions with the scenes that they were written for, some hundred groups of them."""
    rng, captions = np.random.default_rng(0), []
    for _ in range(300):
        scenes = new_group(rng)
        for reference, target in PAIRS:
            pair = scenes[reference], scenes[target]
            captions.append((write_caption(rng, *pair), *pair))
    return captions


def test_captions_are_true(told: Told) -> None:
    for caption, old, new in told:
        assert true(caption, old, new), (caption, old, new)


def test_captions_of_other_pairs_are_mostly_false(told: Told) -> None:
    some = told[:300]
    others = told[300:600]
    elsewhere = sum(true(c, *pair) for (c, *_), (_, *pair) in zip(some, others, strict=True))
    backwards = sum(true(caption, new, old) for caption, old, new in some)
    assert elsewhere < 0.1 * len(some)
    assert backwards < 0.2 * len(some)


def test_every_way_to_tell_a_change_is_in_use(told: Told) -> None:
    text = "\n".join(caption for caption, *_ in told)
    assert not [rule.pattern for rule, _ in GRAMMAR if not rule.search(text)]


def test_descriptions_are_true() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        for scene in new_group(rng):
            description = write_description(rng, scene)
            assert true(description, scene, scene), (description, scene)

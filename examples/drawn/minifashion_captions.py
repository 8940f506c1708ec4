"""The captions of MiniFashion: what annotators write about the way from one garment to another."""

import numpy as np
from numpy.random import Generator

from drawn.common import choose, mistyped, with_article
from drawn.minifashion_wardrobe import COLOURS, NEUTRAL, RARITY, Garment

SYNONYMS = {"grey": ("grey", "gray"), "navy": ("navy", "dark blue")}
NOUNS = {"dress": ("dress",), "shirt": ("shirt", "tee"), "toptee": ("top", "blouse", "shirt")}
CLAUSES: dict[str, dict[str, tuple[str, ...]]] = {  # {} holds the accent colour, or nothing
    "pattern": {
        "plain": ("is plain", "is a solid color", "has no pattern", "is less busy"),
        "stripes": ("has {}stripes", "has {}horizontal stripes", "is striped"),
        "pinstripes": ("has {}vertical stripes", "has {}pinstripes", "has {}stripes"),
        "dots": ("has {}dots", "has {}polka dots", "has {}spots"),
        "checks": ("has {}checks", "has a {}checkered pattern", "is checkered"),
        "flowers": ("has {}flowers", "has a {}floral print", "is floral"),
        "heart": ("has a {}heart", "has a {}heart on the chest", "has a {}graphic"),
        "star": ("has a {}star", "has a {}star on the front", "has a {}graphic"),
        "logo": ("has a {}circle on it", "has a {}logo", "has a round {}graphic"),
        "writing": ("has {}writing", "has {}text on it", "has {}lettering"),
    },
    "sleeves": {
        "none": ("is sleeveless", "has no sleeves"),
        "short": ("has short sleeves", "is short sleeved"),
        "long": ("has long sleeves", "is long sleeved"),
    },
    "length": {"short": ("is short",), "medium": (), "long": ("is long",)},
    "neck": {
        "round": ("has a round neck", "has a crew neck", "has a different neckline"),
        "v": ("has a v neck", "has a deep v neckline", "shows more chest"),
        "collar": ("has a collar", "has a collared neck", "is more formal"),
    },
    "fit": {
        "fitted": ("is more fitted", "is tighter", "is slimmer"),
        "loose": ("is looser", "is more flowy", "is flared"),
    },
    "extra": {
        "": ("has no {}", "does not have {}", "is simpler"),
        "belt": ("has a belt", "has a belted waist"),
        "buttons": ("has buttons", "has buttons down the front"),
        "ruffles": ("has ruffles", "has a ruffled hem"),
    },
}
RELATIVE = {  # less, more, and how often the absolute words are left unsaid
    "sleeves": (("has shorter sleeves",), ("has longer sleeves",), 0.35),
    "length": (("is shorter", "is much shorter"), ("is longer", "is longer in length"), 0.85),
}
VAGUE = {"more", "different"}  # words that need a reference, so that no description has them
SALIENCE = {  # how readily an annotator mentions a change
    "colour": 5.0,
    "accent": 1.5,
    "pattern": 4.0,
    "sleeves": 3.0,
    "length": 2.0,
    "neck": 1.3,
    "fit": 1.0,
    "extra": 1.5,
}


def differences(old: Garment, new: Garment) -> list[str]:
    """The names of the attributes that differ to the eye."""
    names = [name for name in SALIENCE if getattr(old, name) != getattr(new, name)]
    if "accent" in names and not (old.accent and new.accent):
        names.remove("accent")  # it came or went with the pattern
    return names


def colour_word(rng: Generator, colour: str) -> str:
    """One of the names of a colour."""
    return choose(rng, SYNONYMS.get(colour, (colour,)))


def fill_accent(rng: Generator, clause: str, garment: Garment) -> str:
    """Names the accent colour in a clause about a pattern, as often as not."""
    word = f"{colour_word(rng, garment.accent)} " if rng.random() < 0.5 else ""
    return clause.format(word).replace("a orange", "an orange")


def say_colour(rng: Generator, old: Garment, new: Garment) -> str:
    """A new colour by its name, or against the old one."""
    word = colour_word(rng, new.colour)
    phrases = [f"is {word}", f"is {word}", f"is {word}", f"is {word} in color", f"has {word} color"]
    gain = sum(COLOURS[new.colour]) - sum(COLOURS[old.colour])
    if abs(gain) > 120:
        phrases += ("is lighter", "is a lighter color") if gain > 0 else ("is darker", "is darker")
    if (old.colour in NEUTRAL) != (new.colour in NEUTRAL):
        phrases += ["is less colorful" if new.colour in NEUTRAL else "is more colorful"]
    return choose(rng, phrases)


def say(rng: Generator, name: str, old: Garment, new: Garment) -> str:
    """One change as a clause, such as "has longer sleeves"."""
    if name == "colour":
        return say_colour(rng, old, new)
    if name == "accent":
        if rng.random() < 0.5:
            return f"has {colour_word(rng, new.accent)} in it"
        return fill_accent(rng, choose(rng, CLAUSES["pattern"][new.pattern]), new)
    before, after = getattr(old, name), getattr(new, name)
    if name in RELATIVE:
        less, more, share = RELATIVE[name]
        order = RARITY[name][0]
        if after == "medium" or rng.random() < share:
            return choose(rng, more if order.index(after) > order.index(before) else less)
    clause = choose(rng, CLAUSES[name][after])
    if name == "pattern" and after != "plain":
        return fill_accent(rng, clause, new)
    return clause.format(before)


def describe(rng: Generator, garment: Garment, thorough: float) -> str:
    """A noun phrase that names each attribute with about the probability `thorough`."""
    words = [colour_word(rng, garment.colour)] if rng.random() < 0.5 + thorough / 2 else []
    if garment.length != "medium" and rng.random() < thorough:
        words.insert(0, garment.length)
    if rng.random() < thorough * 0.5:
        words.append(garment.fit)
    clauses = []
    for name in ("pattern", "sleeves", "neck", "extra"):
        value = getattr(garment, name)
        if value not in ("", "plain") and rng.random() < thorough:
            clause = choose(rng, [c for c in CLAUSES[name][value] if not VAGUE & {*c.split()}])
            clauses.append(fill_accent(rng, clause, garment) if name == "pattern" else clause)
    tail = [clause.removeprefix("has ") for clause in clauses if clause.startswith("has ")]
    words += [c.removeprefix("is ") for c in clauses if c.startswith("is ")]
    phrase = " ".join([*words, choose(rng, NOUNS[garment.category])])
    phrase += f" with {' and '.join(tail[i] for i in rng.permutation(len(tail)))}" if tail else ""
    return with_article(phrase)


def slip(rng: Generator, caption: str) -> str:
    """The same caption as a hurried person types it."""
    if rng.random() < 0.05:
        caption = mistyped(rng, caption)
    if rng.random() < 0.08:
        caption = caption.capitalize()
    return caption + choose(rng, ("", "", "", "", "", "", ".", " "))


def write_caption(rng: Generator, old: Garment, new: Garment) -> str:
    """What one annotator writes about the way from one garment to the other."""
    if rng.random() < 0.1:
        return slip(rng, f"is {describe(rng, new, 0.5)}")
    names = differences(old, new)
    shares = np.array([SALIENCE[name] for name in names])
    count = min(len(names), int(rng.choice([1, 2, 3], p=[0.45, 0.42, 0.13])))
    chosen = rng.choice(len(names), size=count, replace=False, p=shares / shares.sum())
    text, *others = (say(rng, names[index], old, new) for index in chosen)
    for clause in others:
        with_ = clause.replace("has ", " with ", 1) if clause.startswith("has ") else f", {clause}"
        text += choose(rng, (f" and {clause}", f" and {clause}", f", {clause}", with_))
    kept = "color" if "colour" not in names else "shape" if "fit" not in names else ""
    if kept and rng.random() < 0.12:
        text = f"is the same {kept} but {text}"
    elif rng.random() < 0.15:
        text = f"{choose(rng, ('the', 'this'))} {choose(rng, NOUNS[new.category])} {text}"
    return slip(rng, text)

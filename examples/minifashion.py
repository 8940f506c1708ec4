"""A small fashion data set, drawn: pictures of garments and captions that compare two of them.

It has FashionIQ's folder layout, so that what is written for FashionIQ runs on it in seconds:

    ROOT/images/<ID>.png                              64 x 64 pixels
    ROOT/captions/cap.<category>.<split>.json         [{"target", "candidate", "captions"}, ...]
    ROOT/image_splits/split.<category>.<split>.json   [ID, ...]
    ROOT/descriptions.json                            {ID: sentence}, train images only

The captions imitate FashionIQ's: two annotators per pair, who each name a part of what changed, in
absolute or relative words, with slips of the pen. The descriptions, which FashionIQ does not have,
stand for the web captions that CLIP was trained on.

    python examples/minifashion.py DIR [--seed N]
"""

import string
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from drawn_dataset import (
    FINE,
    RGB,
    SIDE,
    Points,
    choose,
    command_line,
    lit,
    mirrored,
    mistyped,
    shade,
    with_article,
    write_once,
)
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fusecomp.files import write_json

CATEGORIES = ("dress", "shirt", "toptee")
VERSION = 1  # part of the settings on disk: raise it when the same seed draws something else


class Garment(NamedTuple):
    """What a picture shows; `accent` is empty where the pattern is plain."""

    category: str
    colour: str
    accent: str
    pattern: str
    sleeves: str
    length: str
    neck: str
    fit: str
    extra: str


# ---------------------------------------------------------------------------------- the wardrobe
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


def differences(old: Garment, new: Garment) -> list[str]:
    """The names of the attributes that differ to the eye."""
    names = [name for name in SALIENCE if getattr(old, name) != getattr(new, name)]
    if "accent" in names and not (old.accent and new.accent):
        names.remove("accent")  # it came or went with the pattern
    return names


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


# -------------------------------------------------------------------------------------- pictures
# Outlines of the right half, x >= 0, from top to bottom; garments are about 2 high and 1 wide.
BODIES: dict[str, Points] = {
    "dress": [(0.30, -0.86), (0.32, -0.56), (0.23, -0.24)],
    "shirt": [(0.44, -0.74), (0.46, -0.34)],
    "toptee": [(0.32, -0.74), (0.37, -0.40), (0.29, -0.02)],
}
HEM_Y = {
    "dress": {"short": 0.22, "medium": 0.56, "long": 0.92},
    "shirt": {"short": 0.24, "medium": 0.50, "long": 0.78},
    "toptee": {"short": 0.20, "medium": 0.42, "long": 0.68},
}
HEM_X = {
    "dress": {"fitted": 0.30, "loose": 0.54},
    "shirt": {"fitted": 0.42, "loose": 0.58},
    "toptee": {"fitted": 0.32, "loose": 0.50},
}
CUFFS: dict[str, Points] = {  # outer and inner end of a sleeve, from the shoulder
    "short": [(0.27, 0.38), (0.11, 0.46)],
    "long": [(0.42, 1.06), (0.25, 1.12)],
}
NECKS: dict[str, Points] = {  # from the middle of the shoulders
    "round": [(0.17, -0.02), (0.15, 0.09), (0.09, 0.15), (0.0, 0.17)],
    "v": [(0.16, -0.02), (0.0, 0.36)],
    "collar": [(0.16, -0.02), (0.0, 0.16)],
}
WING: Points = [(0.13, -0.07), (0.0, 0.17), (0.17, 0.21), (0.25, 0.0)]
BELT: Points = [(0.25, -0.29), (0.25, -0.20)]
PRINT_SHAPES: dict[str, Points] = {
    "heart": [(0.0, -0.09), (0.08, -0.17), (0.17, -0.13), (0.18, -0.03), (0.0, 0.17)],
    "star": [(0, -0.19), (0.05, -0.06), (0.18, -0.06), (0.08, 0.03), (0.11, 0.16), (0, 0.08)],
    "logo": [(0, -0.15), (0.08, -0.13), (0.15, 0.0), (0.13, 0.08), (0, 0.15)],
    "writing": [(0.22, -0.12), (0.22, -0.05), (0.02, 0), (0.17, 0.04), (0.17, 0.1), (0, 0.1)],
}
LINE: RGB = (70, 70, 70)


class Pose(NamedTuple):
    """Where a garment hangs in its picture: a rotation with scale, and a shift."""

    cos: float
    sin: float
    x: float
    y: float

    def place(self, points: Points, down: float = 0.0) -> Points:
        """Garment coordinates to pixels of the large drawing, after a shift downwards."""
        moved = [(u, v + down) for u, v in points]
        return [
            (self.x + self.cos * u - self.sin * v, self.y + self.sin * u + self.cos * v)
            for u, v in moved
        ]

    def grid(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Garment coordinates of every pixel of the large drawing, two times [side, side]."""
        pixel = np.arange(SIDE * FINE, dtype=np.float32)
        x, y = pixel[None] - np.float32(self.x), pixel[:, None] - np.float32(self.y)
        square = self.cos**2 + self.sin**2
        cos, sin = np.float32(self.cos / square), np.float32(self.sin / square)
        return cos * x + sin * y, cos * y - sin * x


def weave(pattern: str, pose: Pose) -> Image.Image:
    """The mask of the accent colour on the cloth."""
    u, v = pose.grid()
    if pattern == "stripes":
        accent = (v * 4.5) % 1 < 0.42
    elif pattern == "pinstripes":
        accent = (u * 7) % 1 < 0.3
    elif pattern == "checks":
        accent = ((u * 4.5) % 1 < 0.5) ^ ((v * 4.5) % 1 < 0.5)
    else:
        per_unit = 5.5 if pattern == "dots" else 3.6
        across = (u * per_unit + np.floor(v * per_unit) / 2) % 1 - 0.5
        down = (v * per_unit) % 1 - 0.5
        petals = 0.3 if pattern == "dots" else 0.3 + 0.14 * np.cos(5 * np.arctan2(down, across))
        accent = np.hypot(across, down) < petals
    return Image.fromarray(accent.astype(np.uint8) * 255)


def make_cloth(garment: Garment, pose: Pose, dye: float) -> Image.Image:
    """A sheet of cloth with its pattern all over, or with its print on the chest."""
    cloth = Image.new("RGB", (SIDE * FINE,) * 2, shade(COLOURS[garment.colour], dye))
    if garment.pattern in PRINTS:
        half = PRINT_SHAPES[garment.pattern]
        chest = -0.42 if garment.category == "dress" else -0.2
        shape = pose.place([*mirrored(half), *half], chest)
        ImageDraw.Draw(cloth).polygon(shape, fill=shade(COLOURS[garment.accent], dye))
    elif garment.pattern != "plain":
        cloth.paste(shade(COLOURS[garment.accent], dye), mask=weave(garment.pattern, pose))
    return cloth


def sew(canvas: Image.Image, cloth: Image.Image, garment: Garment, pose: Pose) -> None:
    """Cuts sleeves and body out of the cloth and lays them onto the canvas."""
    half = list(BODIES[garment.category])
    shoulder, armpit = half[:2]
    half.append((HEM_X[garment.category][garment.fit], HEM_Y[garment.category][garment.length]))
    pieces = [[*mirrored(half), *half]]
    if garment.sleeves != "none":
        cuff = [(shoulder[0] + x, shoulder[1] + y) for x, y in CUFFS[garment.sleeves]]
        sleeve = [shoulder, *cuff, armpit]
        pieces = [sleeve, mirrored(sleeve), *pieces]
    for piece in map(pose.place, pieces):
        mask = Image.new("1", canvas.size)
        ImageDraw.Draw(mask).polygon(piece, fill=1)
        canvas.paste(cloth, mask=mask)
        ImageDraw.Draw(canvas).line([*piece, piece[0]], fill=LINE)


def trim(canvas: Image.Image, garment: Garment, pose: Pose, wall: RGB) -> None:
    """Draws the neckline, and the belt, the buttons or the ruffles."""
    pen, top = ImageDraw.Draw(canvas), BODIES[garment.category][0][1]
    hem = HEM_Y[garment.category][garment.length]
    colour = COLOURS[garment.colour]
    edge = shade(colour, 0.55) if sum(colour) > 300 else (172, 172, 172)
    neck = NECKS[garment.neck]
    pen.polygon(pose.place([*mirrored(neck), *neck], top), fill=wall, outline=LINE)
    if garment.neck == "collar":
        for wing in (WING, mirrored(WING)):
            pen.polygon(pose.place(wing, top), fill=edge, outline=LINE)
    dots: Points = []
    if garment.extra == "belt":
        pen.polygon(pose.place([*mirrored(BELT), *BELT]), fill=edge)
    elif garment.extra == "buttons":
        dots = [(0.0, y) for y in np.linspace(top + 0.4, hem - 0.1, 5)]
    elif garment.extra == "ruffles":
        half = HEM_X[garment.category][garment.fit]
        dots = [(x, hem) for x in np.linspace(-half, half, 9)]
    radius = pose.cos * (0.04 if garment.extra == "buttons" else 0.075)
    for x, y in pose.place(dots):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=edge)


def draw_garment(rng: Generator, garment: Garment) -> Image.Image:
    """Draws a garment somewhere in front of some wall in some light."""
    large = SIDE * FINE
    angle, scale = rng.normal(0, 0.06), large * rng.uniform(0.38, 0.48)
    x, y = large * (0.5 + rng.normal(0, 0.025, size=2))
    pose = Pose(scale * np.cos(angle), scale * np.sin(angle), x, y)
    red, green, blue = rng.uniform(165, 245) + rng.normal(0, 9, size=3)
    wall = (min(255, int(red)), min(255, int(green)), min(255, int(blue)))
    canvas = Image.new("RGB", (large, large), wall)
    sew(canvas, make_cloth(garment, pose, rng.uniform(0.86, 1.1)), garment, pose)
    trim(canvas, garment, pose, wall)
    return lit(rng, canvas)


# ----------------------------------------------------------------------------------------- words
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


# --------------------------------------------------------------------------------------- the set
def new_ids(rng: Generator, count: int, prefix: str) -> list[str]:
    """Distinct names such as "B004QX2M4A"."""
    letters = string.digits + string.ascii_uppercase
    ids: dict[str, None] = {}
    while len(ids) < count:
        ids[prefix + "".join(letters[i] for i in rng.integers(len(letters), size=6))] = None
    return list(ids)


def render_split(
    root: Path, seed: int, category: str, split: str, images: int, pairs: int
) -> dict[str, str]:
    """Writes the pictures, captions and names of one category; returns its descriptions."""
    number = 2 * CATEGORIES.index(category) + (split == "val")
    rng = np.random.default_rng([seed, number])
    stock = wardrobe(rng, category, images)
    ids = new_ids(rng, images, f"B00{number}")  # the digit keeps the names of splits apart
    triplets = [
        {
            "target": ids[target],
            "candidate": ids[reference],
            "captions": [write_caption(rng, stock[reference], stock[target]) for _ in range(2)],
        }
        for reference, target in draw_pairs(rng, stock, pairs)
    ]
    write_json(root / "captions" / f"cap.{category}.{split}.json", triplets)
    write_json(root / "image_splits" / f"split.{category}.{split}.json", ids)
    for image_id, garment in zip(ids, stock, strict=True):
        draw_garment(rng, garment).save(root / "images" / f"{image_id}.png", compress_level=1)
    return dict(zip(ids, (describe(rng, garment, 0.65) for garment in stock), strict=True))


def render(
    root: str | Path,
    seed: int = 0,
    train_images: int = 1000,
    val_images: int = 400,
    train_triplets: int = 1400,
    val_queries: int = 280,
) -> Path:
    """Renders the data set into a folder, unless it is there already.

    Args:
        root: The folder, which must not exist, or be empty, or hold this very data set.
        seed: The same seed gives the same pictures and the same captions.
        train_images: Pictures in each category's train split.
        val_images: Pictures in each category's gallery.
        train_triplets: Training triplets per category.
        val_queries: Validation queries per category.

    Returns:
        The folder.

    Raises:
        FileExistsError: The folder holds something else.
        ValueError: There are too few images for that many triplets.
    """
    sizes = {"train": (train_images, train_triplets), "val": (val_images, val_queries)}
    settings = {"version": VERSION, "seed": seed} | {k: list(v) for k, v in sizes.items()}

    def write(folder: Path) -> None:
        (folder / "images").mkdir()
        descriptions: dict[str, str] = {}
        for category in CATEGORIES:
            descriptions |= render_split(folder, seed, category, "train", *sizes["train"])
            render_split(folder, seed, category, "val", *sizes["val"])
        write_json(folder / "descriptions.json", descriptions)

    return write_once(root, "minifashion.json", settings, write)


if __name__ == "__main__":
    command_line("Render a small fashion data set.", render)

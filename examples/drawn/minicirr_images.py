"""The images of MiniCIRR: toys of some shape, colour and texture on some ground."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from drawn.common import FINE, RGB, SIDE, Points, lit, mirrored, shade
from drawn.minicirr_scenes import Scene, Toy

Floats = NDArray[np.float64]

LARGE = SIDE * FINE
STEP = 0.3 * LARGE  # between neighbouring places
RADIUS = {"small": 0.095 * LARGE, "big": 0.145 * LARGE}

COLOURS: dict[str, RGB] = {
    "red": (206, 38, 44),
    "blue": (48, 92, 214),
    "yellow": (244, 214, 60),
    "green": (40, 150, 70),
    "white": (244, 244, 240),
    "black": (30, 30, 34),
    "orange": (240, 132, 36),
    "pink": (242, 148, 188),
    "purple": (128, 62, 166),
    "grey": (136, 138, 142),
}
GROUND_COLOURS: dict[str, RGB] = {
    "grass": (112, 168, 82),
    "snow": (226, 232, 240),
    "sand": (222, 196, 144),
    "water": (84, 152, 196),
    "wood": (164, 116, 74),
    "bricks": (172, 92, 76),
    "night": (26, 30, 64),
    "carpet": (150, 130, 164),
}


def arc(count: int, radius: float = 1.0) -> Points:
    """The corners of a regular polygon, the first at the top."""
    angles = [2 * np.pi * number / count for number in range(count)]
    return [(radius * float(np.sin(a)), -radius * float(np.cos(a))) for a in angles]


def zigzag(count: int, inner: float) -> Points:
    """A star's corners, outer and inner in turn."""
    turns = zip(arc(2 * count), arc(2 * count, inner), strict=True)
    return [pair[number % 2] for number, pair in enumerate(turns)]


def symmetric(half: Points) -> Points:
    """A whole outline from its right half."""
    return [*mirrored(half), *half]


OUTLINES: dict[str, Points] = {
    "ball": arc(28),
    "box": symmetric([(0.86, -0.86), (0.86, 0.86)]),
    "star": zigzag(5, 0.42),
    "heart": symmetric(
        [(0, -0.45), (0.3, -0.85), (0.75, -0.8), (1, -0.35), (0.8, 0.15), (0, 0.95)]
    ),
    "ring": arc(28),
    "tree": symmetric(
        [
            *((0, -1.05), (0.5, -0.4), (0.24, -0.4), (0.7, 0.15)),
            *((0.34, 0.15), (0.9, 0.72), (0.16, 0.72), (0.16, 1.05)),
        ]
    ),
    "house": symmetric([(0, -1), (1, -0.12), (0.72, -0.12), (0.72, 0.9)]),
    "fish": [
        (0.9, 0),
        (1.1, 0.6),
        (0.55, 0.12),
        (0.2, 0.5),
        (-0.2, 0.62),
        (-0.75, 0.42),
        (-1.1, 0),
    ],
}
OUTLINES["fish"] += [(x, -y) for x, y in reversed(OUTLINES["fish"][1:-1])]
HOLES: dict[str, Points] = {
    "ring": arc(28, 0.48),
    "house": symmetric([(0.24, 0.18), (0.24, 0.9)]),
}


def make_ground(rng: Generator, ground: str) -> Image.Image:
    """The empty scene in its own tone and pattern, both a little different each time."""
    noise: Floats = rng.normal(0, 1, size=(SIDE, SIDE))
    (left, top), scale = rng.uniform(0, 1, size=2), rng.uniform(0.85, 1.2)
    u, v = (
        scale * np.arange(SIDE)[None] / SIDE + left,
        scale * np.arange(SIDE)[:, None] / SIDE + top,
    )
    relief = PATTERNS[ground](u, v, noise, rng.uniform(-1, 1, size=32))
    base = np.array(GROUND_COLOURS[ground]) * rng.uniform(0.9, 1.1) * rng.uniform(0.96, 1.04, 3)
    pixels = base + relief[:, :, None]
    small = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return small.resize((LARGE, LARGE), Image.Resampling.NEAREST)


def planks(u: Floats, v: Floats, noise: Floats, tones: Floats) -> Floats:
    """Wood: each plank has a tone and a grain of its own."""
    plank = tones[(v * 5).astype(int) % 32]
    grain = np.sin(60 * v + 4 * np.sin(3 * u + 9 * plank))
    relief: Floats = 18 * plank + 8 * grain + 2 * noise
    return relief


def bricks(u: Floats, v: Floats, noise: Floats, tones: Floats) -> Floats:
    """Courses of stones of different tones, with mortar between them."""
    course = np.floor(v * 9)
    across = u * 5 + course / 2
    mortar = (across % 1 < 0.12) | (v * 9 % 1 < 0.18)
    stone = tones[(np.floor(across) * 7 + course).astype(int) % 32]
    return np.where(mortar, 62, 16 * stone) + 3 * noise


def lattice(u: Floats, v: Floats, noise: Floats, tones: Floats) -> Floats:
    """A carpet."""
    lines = ((u + v) * 7 % 1 < 0.16) | ((u - v) * 7 % 1 < 0.16)
    return np.where(lines, 34, 0) + 5 * noise


# How much brighter each pixel is than the ground's colour, [side, side].
PATTERNS: dict[str, Callable[[Floats, Floats, Floats, Floats], Floats]] = {
    "grass": lambda u, v, noise, tones: 18 * np.repeat(noise[::4], 4, axis=0),
    "snow": lambda u, v, noise, tones: 5 * noise + 8 * np.sin(5 * u + 3 * np.sin(4 * v)),
    "sand": lambda u, v, noise, tones: 7 * noise + 7 * np.sin(55 * v + 3 * np.sin(7 * u)),
    "water": lambda u, v, noise, tones: 3 * noise + 20 * np.sin(40 * v + 2 * np.sin(16 * u)),
    "wood": planks,
    "bricks": bricks,
    "night": lambda u, v, noise, tones: np.where(noise > 3.0, 170, 3 * noise),
    "carpet": lattice,
}


def make_cloth(toy: Toy, side: int, turn: float, dye: float) -> Image.Image:
    """A square sheet of what a toy is made of."""
    colour = shade(COLOURS[toy.colour], dye)
    cloth = Image.new("RGB", (side, side), colour)
    if toy.texture == "plain":
        return cloth
    accent = shade(colour, 0.45) if sum(colour) > 330 else (214, 214, 206)
    u, v = np.arange(side)[None] / 9, np.arange(side)[:, None] / 9
    if toy.texture == "striped":
        mask = (u * np.sin(turn) + v * np.cos(turn)) % 1 < 0.45
    else:
        mask = np.hypot((u + np.floor(v) / 2) % 1 - 0.5, v % 1 - 0.5) < 0.3
    cloth.paste(accent, mask=Image.fromarray(mask.astype(np.uint8) * 255))
    return cloth


def put(canvas: Image.Image, toy: Toy, at: Floats, line: RGB, rng: Generator) -> None:
    """Draw a toy onto the canvas, about where `at` says."""
    radius = RADIUS[toy.size] * rng.uniform(0.9, 1.08)
    turn, mirror = rng.normal(0, 0.12), rng.choice([-1, 1])
    x, y = at + rng.normal(0, 0.012 * LARGE, size=2)
    cos, sin = radius * np.cos(turn), radius * np.sin(turn)

    def spots(points: Points) -> Points:
        flipped = [(mirror * u, v) for u, v in points]
        return [(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in flipped]

    outline, hole = spots(OUTLINES[toy.kind]), spots(HOLES.get(toy.kind, []))
    cloth = make_cloth(toy, int(2.6 * radius), turn, rng.uniform(0.88, 1.08))
    corner = int(x - 1.3 * radius), int(y - 1.3 * radius)
    mask = Image.new("1", cloth.size)
    for edge, fill in ((outline, 1), (hole, 0)):
        if edge:
            cut = [(u - corner[0], v - corner[1]) for u, v in edge]
            ImageDraw.Draw(mask).polygon(cut, fill=fill)
    canvas.paste(cloth, corner, mask)
    pen = ImageDraw.Draw(canvas)
    for edge in (outline, hole):
        if edge:
            pen.line([*edge, edge[0]], fill=line, width=2)


def draw_scene(rng: Generator, scene: Scene) -> Image.Image:
    """The image of a scene, by a camera that is held somewhat differently each time."""
    canvas = make_ground(rng, scene.ground)
    zoom, shift = rng.uniform(0.93, 1.03), rng.normal(0, 0.02 * LARGE, size=2)
    line = (176, 176, 184) if scene.ground == "night" else (52, 52, 56)
    chances = rng.spawn(9)  # one for each place: a toy does not change how the others are drawn
    for toy in scene.toys:
        offset = STEP * zoom * np.array([toy.column - 1, toy.row - 1])
        put(canvas, toy, LARGE / 2 + shift + offset, line, chances[3 * toy.row + toy.column])
    return lit(rng, canvas)

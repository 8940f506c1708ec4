"""The images of MiniFashion: a garment in front of some wall in some light."""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from drawn.common import FINE, RGB, SIDE, Points, lit, mirrored, shade
from drawn.minifashion_wardrobe import COLOURS, PRINTS, Garment

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
    """Where a garment hangs in its image: a rotation with scale, and a shift."""

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

"""The scenes of MiniCIRR: a few toys on some ground, and groups of six that are nearly alike."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numpy.random import Generator

KINDS = ("ball", "box", "star", "heart", "ring", "tree", "house", "fish")
GROUNDS = ("grass", "snow", "sand", "water", "wood", "bricks", "night", "carpet")
GROUP = 6  # images in a group, as in CIRR
MOST = 6  # toys in a scene


class Toy(NamedTuple):
    """One object, at one of nine places."""

    kind: str
    colour: str
    texture: str
    size: str
    column: int  # 0 left, 1, 2 right
    row: int  # 0 top, 1, 2 bottom


class Scene(NamedTuple):
    """What an image shows. No two toys are at one place, and they stand in the order of these."""

    ground: str
    toys: tuple[Toy, ...]

    def having(self, **about: str | int) -> list[Toy]:
        """The toys with these attributes."""
        wanted = about.items()
        return [toy for toy in self.toys if all(getattr(toy, n) == v for n, v in wanted)]


RARITY: dict[str, dict[str, float]] = {  # values and how common they are
    "kind": dict.fromkeys(KINDS, 1),
    "colour": {
        "red": 5,
        "blue": 5,
        "yellow": 4,
        "green": 3,
        "white": 3,
        "black": 3,
        "orange": 2,
        "pink": 2,
        "purple": 2,
        "grey": 1,
    },
    "texture": {"plain": 6, "striped": 2, "spotted": 2},
    "size": {"small": 1, "big": 1},
    "ground": dict.fromkeys(GROUNDS, 1),
}


def draw(rng: Generator, shares: dict[str, float], unlike: str = "") -> str:
    """A value other than `unlike`, as common as its share."""
    values = [value for value in shares if value != unlike]
    total = sum(shares[value] for value in values)
    return str(rng.choice(values, p=[shares[value] / total for value in values]))


def free_places(toys: Sequence[Toy]) -> list[tuple[int, int]]:
    """The places where nothing stands."""
    taken = {(toy.column, toy.row) for toy in toys}
    return [(c, r) for r in range(3) for c in range(3) if (c, r) not in taken]


def arrange(ground: str, toys: Sequence[Toy]) -> Scene:
    """A scene with its toys in order."""
    return Scene(ground, tuple(sorted(toys, key=lambda toy: (toy.row, toy.column))))


def placed(rng: Generator, toy: Toy, toys: Sequence[Toy]) -> Toy:
    """The toy at a place where none of the toys stands."""
    column, row = free_places(toys)[int(rng.integers(9 - len(toys)))]
    return toy._replace(column=column, row=row)


def new_toy(rng: Generator) -> Toy:
    """A toy at no place in particular."""
    kind, colour, texture, size = (draw(rng, RARITY[field]) for field in Toy._fields[:4])
    return Toy(kind, colour, texture, size, column=0, row=0)


def new_scene(rng: Generator) -> Scene:
    """One to three kinds of toys, of each one to three equal ones."""
    toys: list[Toy] = []
    for _ in range(rng.choice([1, 2, 3], p=[0.25, 0.45, 0.3])):
        toy = new_toy(rng)
        for _ in range(rng.choice([1, 2, 3], p=[0.65, 0.22, 0.13])):
            if len(toys) < MOST:
                toys.append(placed(rng, toy, toys))
    return arrange(draw(rng, RARITY["ground"]), toys)


# ------------------------------------------------------------------------------- how scenes differ
def add(rng: Generator, scene: Scene) -> Scene:
    """One toy more, as often as not another one like those that are there."""
    if len(scene.toys) == MOST:
        return scene
    like = pick(rng, scene) if rng.random() < 0.5 else new_toy(rng)
    return arrange(scene.ground, [*scene.toys, placed(rng, like, scene.toys)])


def remove(rng: Generator, scene: Scene) -> Scene:
    """One toy less, or all that are like it."""
    gone = alike(rng, scene, share=0.4)
    left = [toy for toy in scene.toys if toy not in gone]
    return arrange(scene.ground, left) if left else scene


def change(rng: Generator, scene: Scene) -> Scene:
    """Another colour, kind, texture or size of one toy, or of all that are like it."""
    changed = alike(rng, scene, share=0.7)
    field = draw(rng, {"colour": 0.45, "kind": 0.25, "texture": 0.15, "size": 0.15})
    new: dict[str, Any] = {field: draw(rng, RARITY[field], unlike=getattr(changed[0], field))}
    toys = [toy._replace(**new) if toy in changed else toy for toy in scene.toys]
    return arrange(scene.ground, toys)


def move(rng: Generator, scene: Scene) -> Scene:
    """One toy at another place."""
    moved = pick(rng, scene)
    others = [toy for toy in scene.toys if toy != moved]
    return arrange(scene.ground, [*others, placed(rng, moved, scene.toys)])


def carry(rng: Generator, scene: Scene) -> Scene:
    """All toys on another ground."""
    return scene._replace(ground=draw(rng, RARITY["ground"], unlike=scene.ground))


CHANGES: dict[Callable[[Generator, Scene], Scene], float] = {
    add: 0.24,
    remove: 0.18,
    change: 0.32,
    move: 0.14,
    carry: 0.12,
}


def pick(rng: Generator, scene: Scene) -> Toy:
    """Any of the toys."""
    return scene.toys[int(rng.integers(len(scene.toys)))]


def alike(rng: Generator, scene: Scene, share: float) -> list[Toy]:
    """A toy, and with the probability `share` all that look like it."""
    toy = pick(rng, scene)
    together = rng.random() < share
    return [other for other in scene.toys if other == toy or (together and other[:4] == toy[:4])]


def vary(rng: Generator, scene: Scene) -> Scene:
    """The scene after one to four changes."""
    changes = list(CHANGES)
    for _ in range(rng.choice([1, 2, 3, 4], p=[0.2, 0.4, 0.3, 0.1])):
        scene = changes[int(rng.choice(len(changes), p=list(CHANGES.values())))](rng, scene)
    return scene


def new_group(rng: Generator) -> list[Scene]:
    """Six distinct scenes, each a variant of an earlier one."""
    scenes = [new_scene(rng)]
    while len(scenes) < GROUP:
        scene = vary(rng, scenes[int(rng.integers(len(scenes)))])
        if scene not in scenes:
            scenes.append(scene)
    return scenes

"""The captions of MiniCIRR: what one person writes about the way from one scene to another.

As in CIRR a caption is one sentence, which tells what to add, remove, count, recolour or move, or
what the target shows; it names a part of what differs, and is true of the two scenes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from numpy.random import Generator

from drawn.common import choose, mistyped, with_article
from drawn.minicirr_phrases import (
    BACKGROUNDS,
    COLUMNS,
    NUMBERS,
    ON,
    PATTERNS,
    ROWS,
    About,
    choose_noun,
    counted,
    describe,
    image,
    noun,
    place_words,
    word,
)
from drawn.minicirr_scenes import KINDS, Scene, Toy


class Change(NamedTuple):
    """Ways to tell one difference; a caption tells no two that share a topic."""

    topics: set[str]
    salience: float
    texts: list[str]


def by_kind(old: Scene, new: Scene) -> Iterator[tuple[str, list[Toy], list[Toy]]]:
    """Each kind that is there, with its toys before and after."""
    for kind in KINDS:
        before, after = old.having(kind=kind), new.having(kind=kind)
        if before or after:
            yield kind, before, after


def more_toys(rng: Generator, old: Scene, new: Scene) -> Iterator[Change]:
    """What was added."""
    for kind, before, after in by_kind(old, new):
        count = len(after) - len(before)
        if count <= 0:
            continue

        def holds(about: About, count: int = count) -> bool:
            return len(new.having(**about)) - len(old.having(**about)) == count

        about = describe(rng, unmatched(rng, after, before), holds)
        phrase, be = counted(rng, about, count), "is" if count == 1 else "are"
        texts = [f"add {phrase}", f"add {phrase}", f"include {phrase}", f"there {be} also {phrase}"]
        texts += [f"{phrase} {be} added"]
        if not before:
            texts += [f"must have {phrase}", f"{phrase}"]
        else:
            plural = choose_noun(rng, kind, 2)
            numbers = NUMBERS[len(after)], NUMBERS[len(before)]
            texts += [f"more {plural}", f"{numbers[0]} {plural} instead of {numbers[1]}"]
            if count == 1:
                texts += [f"add another {noun(rng, about, 1)}", f"one more {noun(rng, about, 1)}"]
        yield Change({kind}, 3.0, texts)


def fewer_toys(rng: Generator, old: Scene, new: Scene) -> Iterator[Change]:
    """What was removed."""
    for kind, before, after in by_kind(old, new):
        count = len(before) - len(after)
        if count <= 0:
            continue

        def all_gone(about: About, count: int = count) -> bool:
            return len(old.having(**about)) == count and not new.having(**about)

        toy = unmatched(rng, before, after)
        about = describe(rng, toy, all_gone)
        plural = choose_noun(rng, kind, 2)
        if all_gone(about):
            phrase, be = noun(rng, about, count), "is" if count == 1 else "are"
            texts = [f"remove the {phrase}", f"remove the {phrase}", f"take away the {phrase}"]
            texts += [f"the {phrase} {be} gone", f"without the {phrase}"]
            if not after:
                texts += [f"no {plural}", f"there are no {plural}"]
        else:
            texts = [f"remove {NUMBERS[count]} of the {plural}"]
        if after:
            numbers = NUMBERS[len(after)], NUMBERS[len(before)]
            texts += [f"fewer {plural}", f"less {plural}"]
            texts += [f"only {numbers[0]} {choose_noun(rng, kind, len(after))} left"]
            texts += [f"{numbers[0]} instead of {numbers[1]} {plural}"]
        yield Change({kind}, 2.6, texts)


def unmatched(rng: Generator, toys: Sequence[Toy], others: Sequence[Toy]) -> Toy:
    """One of the toys whose look is less common among the others."""
    looks = Counter(toy[:4] for toy in toys) - Counter(toy[:4] for toy in others)
    found = [toy for toy in toys if toy[:4] in looks]
    return found[int(rng.integers(len(found)))]


def replaced(rng: Generator, old: Scene, new: Scene) -> Iterator[Change]:
    """One toy for another."""
    gone, come = (
        [k for k in KINDS if len(one.having(kind=k)) == 1 and not other.having(kind=k)]
        for one, other in ((old, new), (new, old))
    )
    for before in gone:
        for after in come:
            toy = new.having(kind=after)[0]
            if old.having(kind=before)[0][4:] != toy[4:]:
                continue
            about = describe(rng, toy, lambda about: len(new.having(**about)) == 1, 0.8)
            phrase, lost = with_article(noun(rng, about, 1)), choose_noun(rng, before, 1)
            texts = [f"replace the {lost} with {phrase}", f"change the {lost} to {phrase}"]
            texts += [f"{phrase} instead of the {lost}", f"turn the {lost} into {phrase}"]
            yield Change({before, after}, 5.0, texts)


def altered(rng: Generator, old: Scene, new: Scene) -> Iterator[Change]:
    """Another colour, texture or size of as many toys as there were."""
    for kind, before, after in by_kind(old, new):
        if len(before) != len(after):
            continue
        for field in ("colour", "texture", "size"):
            values = [Counter(str(getattr(t, field)) for t in toys) for toys in (before, after)]
            lost, gained = values[0] - values[1], values[1] - values[0]
            if len(lost) != 1 or len(gained) != 1:
                continue
            (was, count), (is_, _) = *lost.items(), *gained.items()
            if count == len(before):
                texts = alter_all(rng, kind, field, count, was, is_)
            else:
                texts = alter_some(rng, kind, count, was, is_, values[0][was] == count)
            yield Change({kind}, {"colour": 3.5, "texture": 1.6, "size": 1.3}[field], texts)


def alter_all(rng: Generator, kind: str, field: str, count: int, was: str, is_: str) -> list[str]:
    """How to tell that all toys of a kind look different."""
    name, be, have = (
        choose_noun(rng, kind, count),
        *(("is", "has") if count == 1 else ("are", "have")),
    )
    if field == "size":
        than = choose(rng, ("bigger", "larger") if is_ == "big" else ("smaller",))
        return [f"make the {name} {than}", f"{than} {name}", f"the {name} {be} {than}"]
    old, new = word(rng, was), word(rng, is_)
    texts = [f"make the {name} {new}", f"the {name} {be} {new}", f"{new} {name}"]
    texts += [f"{new} {name} instead of {old}", f"the {name} {be} {new} and not {old}"]
    if field == "texture":
        return texts + [f"the {name} now {have} {PATTERNS.get(is_, 'no pattern')}"] * 2
    texts += [f"change the {name} from {old} to {new}", f"change the {name} to {new}"]
    return [*texts, f"the color of the {name} has changed from {old} to {new}"]


def alter_some(
    rng: Generator, kind: str, count: int, was: str, is_: str, all_that_were: bool
) -> list[str]:
    """How to tell that some toys of a kind look different."""
    plural, new = choose_noun(rng, kind, 2), word(rng, is_)
    texts = [f"make {NUMBERS[count]} of the {plural} {new}"]
    if all_that_were:
        texts += [f"make the {word(rng, was)} {choose_noun(rng, kind, count)} {new}"] * 2
    return texts


def moved(rng: Generator, old: Scene, new: Scene) -> Iterator[Change]:
    """Another place of the only toy of its kind."""
    for kind, before, after in by_kind(old, new):
        if not len(before) == len(after) == 1 or before[0][4:] == after[0][4:]:
            continue
        one, phrase = after[0], choose_noun(rng, kind, 1)
        texts = []
        for index, names, ways in ((4, COLUMNS, ("left", "right")), (5, ROWS, ("up", "down"))):
            shift = int(one[index]) - int(before[0][index])
            if shift:
                texts.append(f"move the {phrase} {ways[shift > 0]}")
                if names[int(one[index])]:
                    texts.append(f"move the {phrase} to the {names[int(one[index])]}")
        where = place_words(one.column, one.row)
        if where:
            texts += [f"the {phrase} is now{where}", f"put the {phrase}{where}"]
        yield Change({kind}, 2.0, texts)


def related(rng: Generator, old: Scene, new: Scene) -> Iterator[Change]:
    """How a toy now stands to another, where each is the only one of its kind."""
    single = [kind for kind in KINDS if len(new.having(kind=kind)) == 1]
    for one in single:
        for other in single:
            for field, ways in (("column", "to the left of"), ("row", "above")):
                if before_in(new, one, other, field) and not before_in(old, one, other, field):
                    names = choose_noun(rng, one, 1), choose_noun(rng, other, 1)
                    texts = [f"put the {names[0]} {ways} the {names[1]}"]
                    texts += [f"the {names[0]} is {ways} the {names[1]}"]
                    yield Change({one, other}, 0.5, texts)


def before_in(scene: Scene, one: str, other: str, field: str) -> bool:
    """Whether some toy of a kind stands left of, or above, some toy of another kind."""
    return any(
        getattr(a, field) < getattr(b, field)
        for a in scene.having(kind=one)
        for b in scene.having(kind=other)
    )


def background(rng: Generator, old: Scene, new: Scene) -> Iterator[Change]:
    """Another ground."""
    if old.ground == new.ground:
        return
    on, name = choose(rng, ON[new.ground]), choose(rng, BACKGROUNDS[new.ground])
    it = "it" if len(new.toys) == 1 else "them"
    texts = [f"change the background to {name}", f"put {it} {on}", f"{on}", f"put everything {on}"]
    texts += [f"{name} instead of {choose(rng, BACKGROUNDS[old.ground])}", "different background"]
    if old.toys == new.toys:
        texts += [f"the same things {on}"] * 3
    yield Change({"ground"}, 3.0, texts)


def total(rng: Generator, old: Scene, new: Scene) -> Iterator[Change]:
    """More or fewer toys altogether."""
    gain = len(new.toys) - len(old.toys)
    if abs(gain) > 1:
        things = choose(rng, ("things", "objects", "items"))
        much = choose(rng, ("more",) if gain > 0 else ("fewer", "less"))
        yield Change({*KINDS}, 0.6, [f"{much} {things}"])


TELL = (more_toys, fewer_toys, replaced, altered, moved, related, background, total)
FRAMES = (*["{}"] * 4, "show {}", "shows {}", "the target photo has {}", "change to {}")
FRAMES += ("unlike the reference image, i want the target image to show {}", "i want to see {}")


def tell_changes(rng: Generator, old: Scene, new: Scene) -> str:
    """One to three of the differences, each in a clause; nothing, where no clause fits."""
    changes = [change for tell in TELL for change in tell(rng, old, new)]
    count = int(rng.choice([1, 2, 3], p=[0.3, 0.5, 0.2]))
    clauses: list[str] = []
    while changes and len(clauses) < count:
        shares = [change.salience for change in changes]
        chosen = changes[int(rng.choice(len(changes), p=[s / sum(shares) for s in shares]))]
        clauses.append(choose(rng, chosen.texts))
        changes = [change for change in changes if not change.topics & chosen.topics]
    return choose(rng, (" and ", " and ", ", ")).join(clauses)


def tell_target(rng: Generator, old: Scene, new: Scene) -> str:
    """What the target shows, most of it among what differs."""
    kinds = [str(kind) for kind in rng.permutation(sorted({toy.kind for toy in new.toys}))]
    differs = [kind for kind in kinds if old.having(kind=kind) != new.having(kind=kind)]
    count = int(rng.choice([1, 2, 3], p=[0.4, 0.45, 0.15]))
    told = list(dict.fromkeys([*differs, *kinds]))[:count]
    text = image(rng, new, told, 1.0)
    if {*told} == {*kinds} and rng.random() < 0.3:
        text = f"only {text}"
    if rng.random() < (0.55 if old.ground != new.ground else 0.2):
        text += f" {choose(rng, ON[new.ground])}"
    return choose(rng, FRAMES).format(text)


def write_caption(rng: Generator, old: Scene, new: Scene) -> str:
    """What one annotator writes about the way from one scene to another."""
    text = tell_changes(rng, old, new) if rng.random() < 0.7 else ""
    return text or tell_target(rng, old, new)


def slip(rng: Generator, caption: str) -> str:
    """The same caption with the care of one annotator or another."""
    if rng.random() < 0.03:
        caption = mistyped(rng, caption)
    if rng.random() < 0.6:
        caption = caption[0].upper() + caption[1:]
    return caption + ("." if rng.random() < 0.5 else "")


def write_description(rng: Generator, scene: Scene) -> str:
    """What stands beside an image on the web: most of what it shows, in any order."""
    kinds = [str(kind) for kind in rng.permutation(sorted({toy.kind for toy in scene.toys}))]
    text = image(rng, scene, kinds, 1.7)
    return f"{text} {choose(rng, ON[scene.ground])}" if rng.random() < 0.7 else text

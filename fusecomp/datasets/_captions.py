"""The texts that published systems make of the two captions of a FashionIQ pair."""

from collections.abc import Callable

Texts = tuple[str, ...]


def clean(caption: str) -> str:
    """Return the caption without the dots, question marks, commas and blanks around it."""
    return caption.strip(".?, ")


def _joined(first: str, second: str) -> str:
    # str.capitalize also lowers the rest of the first caption; the published texts have that.
    return f"{clean(first).capitalize()} and {clean(second)}"


def _alone(caption: str) -> str:
    return clean(caption).capitalize()


def _random(c1: str, c2: str) -> tuple[Texts, ...]:
    return (_joined(c1, c2),), (_joined(c2, c1),), (_alone(c1),), (_alone(c2),)


RANDOM = "random"

# name -> the texts of each query that a pair gives; for "random", of which one is drawn.
CAPTIONS: dict[str, Callable[[str, str], tuple[Texts, ...]]] = {
    RANDOM: _random,
    "both": lambda c1, c2: ((_joined(c1, c2),),),
    "reversed": lambda c1, c2: ((_joined(c2, c1),),),
    "averaged": lambda c1, c2: ((_joined(c1, c2), _joined(c2, c1)),),
    "alone": lambda c1, c2: ((_alone(c1),), (_alone(c2),)),
    "both-orders": lambda c1, c2: ((_joined(c1, c2),), (_joined(c2, c1),)),
}

"""The texts that published systems make of the two captions of a FashionIQ pair."""

from collections.abc import Callable

Texts = tuple[str, ...]


def clean(caption: str) -> str:
    """Strip dots, question marks, commas and blanks from both ends of a caption."""
    return caption.strip(".?, ")


def _joined(first: str, second: str) -> str:
    # str.capitalize also lowers the rest of the first caption; the published texts have that.
    return f"{clean(first).capitalize()} and {clean(second)}"


def _alone(caption: str) -> str:
    return clean(caption).capitalize()


RANDOM = "random"

# name -> the texts of each query that a pair gives; "random" draws one of these.
CAPTIONS: dict[str, Callable[[str, str], tuple[Texts, ...]]] = {
    RANDOM: lambda c1, c2: ((_joined(c1, c2),), (_joined(c2, c1),), (_alone(c1),), (_alone(c2),)),
    "both": lambda c1, c2: ((_joined(c1, c2),),),
    "reversed": lambda c1, c2: ((_joined(c2, c1),),),
    "averaged": lambda c1, c2: ((_joined(c1, c2), _joined(c2, c1)),),
    "alone": lambda c1, c2: ((_alone(c1),), (_alone(c2),)),
    "both-orders": lambda c1, c2: ((_joined(c1, c2),), (_joined(c2, c1),)),
}

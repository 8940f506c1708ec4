"""How the rounds of a session become one query."""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from fusecomp._core.checks import number, require
from fusecomp.retrieval._compose_parts import compose_parts


class Strategy(Protocol):
    """Makes one query of the rounds of a session, and of the images that were judged."""

    @property
    def adds_rounds(self) -> bool:
        """Whether queries are added up, which those of a similarity of its own do not bear."""
        ...

    def combine(self, queries: Tensor, weights: Tensor, liked: Tensor, disliked: Tensor) -> Tensor:
        """Return the query [1, E].

        ``queries`` [R, E] and ``weights`` [R] are those of the rounds, in order; ``liked`` [L, D]
        and ``disliked`` [M, D] are image features. Each may have no rows. Where there are neither
        queries nor likes, the dislikes may be refused, and what is returned is not searched for.
        """
        ...


@dataclass(frozen=True)
class LastRound:
    """Search by the last round alone, as the demo of CLIP4Cir does.

    It suits a chain, where each text says what separates the image that is shown from the next.
    Its weight must be positive, and then changes nothing.
    """

    adds_rounds: ClassVar[bool] = False

    def combine(self, queries: Tensor, weights: Tensor, liked: Tensor, disliked: Tensor) -> Tensor:
        """Return the last query.

        Raises:
            ValueError: if there are judged images, or the last weight is not positive.
        """
        _require_unjudged(self, liked, disliked)
        if not weights[-1] > 0:
            raise ValueError(
                f"{self} searches by the last round alone, so its weight must be positive, got "
                f"{float(weights[-1])}: MeanOfRounds() subtracts rounds from others"
            )
        return queries[-1:]


@dataclass(frozen=True)
class MeanOfRounds:
    """Search by the mean of all rounds' queries, each times its weight (arXiv 2604.12904).

    ::

        query = unit(sum over rounds r of weight_r query_r)

    It suits rounds towards a goal, where each text says what separates the shown image from the
    image that is looked for, so that every round's query estimates the same image.
    """

    adds_rounds: ClassVar[bool] = True

    def combine(self, queries: Tensor, weights: Tensor, liked: Tensor, disliked: Tensor) -> Tensor:
        """Return the mean at unit length.

        Raises:
            ValueError: if there are judged images, no weight is positive, or queries cancel out.
        """
        _require_unjudged(self, liked, disliked)
        if not (weights > 0).any():
            raise ValueError(
                f"no round has a positive weight: {weights.tolist()}; say first what to search for"
            )
        return compose_parts(queries, weights=weights)


def _require_unjudged(strategy: Strategy, liked: Tensor, disliked: Tensor) -> None:
    if len(liked) or len(disliked):
        raise ValueError(f"{strategy} takes no likes and dislikes: Rocchio(rounds={strategy}) does")


@dataclass(frozen=True)
class Rocchio:
    """Move the query towards liked images and away from disliked ones.

    With the query q of the rounds, by the strategy ``rounds``, and unit(x) = x / |x|::

        query = unit(alpha q + beta mean(unit(liked)) - gamma mean(unit(disliked)))

    Source: J. J. Rocchio, Relevance feedback in information retrieval (1971); the values are those
    that Manning, Raghavan and Schütze suggest (Introduction to information retrieval, 9.1.1, 2008).
    Without a round the query is that of the likes; without likes and dislikes it is q unchanged.

    Args:
        alpha: weight of the rounds, finite and not negative, as the others are.
        beta: weight of the liked images.
        gamma: weight of the disliked images.
        rounds: the strategy that makes one query of the rounds.

    Raises:
        TypeError: if rounds is no strategy.
        ValueError: if a weight is no such number.
    """

    alpha: float = 1.0
    beta: float = 0.75
    gamma: float = 0.15
    rounds: Strategy = field(default=LastRound())

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            object.__setattr__(self, name, number(name, vars(self)[name], 0))
        require("rounds", self.rounds, "combine", "a strategy such as LastRound()")

    @property
    def adds_rounds(self) -> bool:
        """Whether the strategy of the rounds adds queries up."""
        return self.rounds.adds_rounds

    def combine(self, queries: Tensor, weights: Tensor, liked: Tensor, disliked: Tensor) -> Tensor:
        """Return the query that was moved.

        Raises:
            ValueError: if nothing has a weight, such as a like alone with ``beta=0``; if all that
                is added cancels out; or as the strategy of the rounds.
        """
        parts, factors = [], []
        if len(queries):
            query = self.rounds.combine(queries, weights, liked[:0], disliked[:0])
            if not len(liked) and not len(disliked):
                return query
            parts, factors = [query], [self.alpha]
        for images, factor in ((liked, self.beta), (disliked, -self.gamma)):
            if len(images):
                parts.append(images)
                factors += [factor / len(images)] * len(images)
        if not any(factors):
            raise ValueError(
                f"{self} leaves nothing to search by, as all that was asked and judged has the "
                "weight 0: ask first, or choose other weights"
            )
        return compose_parts(torch.cat(parts), weights=factors)

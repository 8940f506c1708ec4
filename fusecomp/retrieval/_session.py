from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fusecomp._core.abilities import token_function
from fusecomp._core.checks import flag, require, shown
from fusecomp._core.identity import class_name, describe
from fusecomp._core.tensors import check_row
from fusecomp.retrieval._attributes import Value
from fusecomp.retrieval._gallery import Gallery
from fusecomp.retrieval._hits import Hits
from fusecomp.retrieval._round import Reference, Round, make_round
from fusecomp.retrieval._session_file import Judged, Judgement, Step, read_session, write_session
from fusecomp.retrieval._strategies import Rocchio, Strategy
from fusecomp.types import Encoder, QueryModel

_ROCCHIO = Rocchio()
# What tells that weights are as they were: where they are, and how often they were written.
_States = list[tuple[int, int]]
# The encoder that each gallery was compared with last, which reads all weights, and their states.
_CHECKED: WeakKeyDictionary[Gallery, tuple[Encoder, _States]] = WeakKeyDictionary()


class SearchSession:
    """Search in rounds: ask, look at the results, say what should differ, judge, take back.

    Each round gives a query of its own, and the strategy makes one of them all. A call that fails
    leaves the session as it was. Any number of sessions may share a model and a gallery, but the
    calls of one follow one another.

    Args:
        model: such as ``ComposedEncoder``; its encoder must be able to encode the texts.
        gallery: images of this model's encoder.
        strategy: how rounds and judgements become one query: ``LastRound()`` or ``MeanOfRounds()``,
            and ``Rocchio(rounds=...)`` around one of them for likes and dislikes; ``Rocchio()``
            takes the last round.
        history: rounds and judgements to go on from: those of another session's ``history``, of
            this model and gallery. Nothing is encoded again.

    Raises:
        TypeError: if model, gallery, strategy or history are something else.
        ValueError: if the gallery belongs to another encoder; if the fusion has a similarity of
            its own and the strategy adds queries up; or if the fusion names ``image_tokens`` that
            the encoder gives, as a gallery keeps none.

    Example:
        >>> import fusecomp as fc
        >>> images = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [2.0, 1.0]])
        >>> encoder = fc.CachedEncoder.from_arrays(
        ...     ["a", "b", "c", "d"], images, ["is blue", "is longer"], torch.eye(2)
        ... )
        >>> model = fc.ComposedEncoder(encoder, fc.Sum())
        >>> session = SearchSession(model, fc.Gallery.build(model, ["a", "b", "c", "d"]))
        >>> session.ask("a", "is longer", k=2).ids
        ['d', 'c']
        >>> session.like("c")
        >>> session.ask("d", "is longer").ids
        ['b']
        >>> session
        SearchSession(2 rounds, 1 judgement; Gallery(4 images of 2 x float32, ExactIndex))
    """

    def __init__(
        self,
        model: QueryModel,
        gallery: Gallery,
        strategy: Strategy = _ROCCHIO,
        *,
        history: Sequence[Step] = (),
    ) -> None:
        require("model", model, "compose", "a ComposedEncoder", "model, gallery")
        require("gallery", gallery, "features_of", "a Gallery", "model, gallery")
        require("strategy", strategy, "combine", "a strategy such as Rocchio()")
        _require_model(gallery, model)
        if model.similarity is not None and strategy.adds_rounds:
            raise ValueError(
                f"{strategy} adds queries up, but those of a fusion with a similarity of its own "
                "cannot be added: use LastRound()"
            )
        if "image_tokens" in model.fusion_keywords and token_function(model.encoder, "image"):
            kind = type(model.fusion).__name__
            raise ValueError(f"{kind} takes tokens of images, but a gallery keeps none of them")
        require("history", history, "__len__", "the history of a session")
        self.model, self.gallery, self.strategy = model, gallery, strategy
        self._steps: tuple[Step, ...] = tuple(history)
        for step in self._steps:
            if not isinstance(step, Round | Judgement):
                raise TypeError(f"history must hold rounds and judgements, got {shown(step)}")

    @property
    def history(self) -> tuple[Step, ...]:
        """The rounds and judgements so far, in order."""
        return self._steps

    @property
    def seen(self) -> list[str]:
        """The ids of the references and judged images of the history, in order."""
        return _seen(self._steps)

    @property
    def query(self) -> Tensor:
        """The query [1, E] that the strategy makes of the history.

        Raises:
            ValueError: if nothing was asked or liked yet, or for any reason of the strategy.
        """
        _require_a_wish(self._steps)
        return self._query(self._steps)

    def __repr__(self) -> str:
        rounds = sum(isinstance(step, Round) for step in self._steps)
        judged = len(self._steps) - rounds
        counts = f"{rounds} round{'s' * (rounds != 1)}, {judged} judgement{'s' * (judged != 1)}"
        return f"SearchSession({counts}; {self.gallery})"

    def ask(
        self,
        reference: Reference | None = None,
        text: str | None = None,
        weight: float = 1.0,
        k: int = 10,
        *,
        exclude_seen: bool = True,
    ) -> Hits:
        """Add a round, and return the k best images.

        A reference and a text are composed by the model. A text alone is a search by text: its
        query is the text's features at unit length. An image alone searches for the images most
        like it: its query is the image's features at unit length. Both are those of a two-tower
        encoder (Radford et al., 2021), known from papers on composed retrieval as text-only and
        image-only; the fusion has no part in them.

        Args:
            reference: the id of an image in the gallery, whose features are there already; an id
                that the encoder looks up; the ``Path`` of a file; an image opened by Pillow; an
                array of pixels, uint8 [H, W, 3] or [H, W]; or a loaded image, a tensor as
                ``encode_image`` takes it but without the batch axis.
            text: what should differ, or what to search for.
            weight: of this round; finite. A negative one says "not this" where the strategy adds
                rounds up, 0 leaves the round out.
            k: the number of images.
            exclude_seen: leave out the references and the judged images of the whole history.

        Raises:
            TypeError: if the text is no string.
            ValueError: if there is neither reference nor text, an id is unknown, the text is blank
                or cannot be encoded, the weight is not finite, a text alone has another width than
                the images, one of them is alone though the fusion has a similarity of its own, or
                the strategy refuses the rounds.
            FileNotFoundError: if there is no such file.
            ImageError: if the image cannot be read.
            RuntimeError: if another thread changed the session meanwhile.
        """
        before = self._steps
        steps = (*before, make_round(self.model, self.gallery, reference, text, weight))
        hits = self._search(steps, k, exclude_seen)
        self._keep(steps, before)
        return hits

    def like(self, image_id: str) -> None:
        """Say that an image of the gallery is right in part; a later judgement replaces this one.

        Raises:
            ValueError: if the image is not in the gallery, the fusion has a similarity of its own,
                or the strategy takes no likes.
        """
        self._judge(image_id, True)

    def dislike(self, image_id: str) -> None:
        """Say that an image of the gallery is wrong; a later judgement replaces this one.

        Raises:
            ValueError: as ``like``.
        """
        self._judge(image_id, False)

    def undo(self) -> Step:
        """Take the last round or judgement back, and return it.

        Raises:
            ValueError: if there is none.
        """
        if not self._steps:
            raise ValueError("there is nothing to undo")
        *before, last = self._steps
        self._steps = tuple(before)
        return last

    def results(
        self,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        where: Mapping[str, Value | Collection[Value]] | None = None,
    ) -> Hits:
        """Return the k best images of the history; the session stays as it is.

        Args:
            k: the number of images.
            exclude_seen: leave out the references and the judged images of the history.
            where: what attributes the images must have, as in ``Gallery.search``.

        Raises:
            ValueError: if nothing was asked or liked yet, or for any reason of ``Gallery.search``.
        """
        return self._search(self._steps, k, exclude_seen, where)

    def to_json(self) -> str:
        """Return the history as JSON, without the images themselves.

        A reference in the gallery is kept as its id, another one as its features (float32, in
        base64), some 4 bytes x 4/3 for each of D numbers.

        Raises:
            ValueError: if the strategy is your own and tells nothing of its settings.
        """
        return write_session(self._steps, self.gallery.key, describe(self.strategy))

    @classmethod
    def from_json(
        cls, model: QueryModel, gallery: Gallery, text: str, strategy: Strategy = _ROCCHIO
    ) -> Self:
        """Return the session that ``to_json`` wrote, with equal results.

        It opens no file, and encodes the texts again.

        Args:
            model: as it was.
            gallery: as it was; more images may have come.
            text: what ``to_json`` returned; anything else is refused, by the name of the field.
            strategy: as it was.

        Raises:
            ValueError: if this is no such JSON, it belongs to another encoder or strategy, an image
                is not in the gallery any more, or for any reason of ``ask`` and ``like``.
        """
        session = cls(model, gallery, strategy)
        for entry in read_session(text, gallery, describe(strategy)):
            if isinstance(entry, Judged):
                session._judge(*entry)
            else:
                session._steps += (make_round(model, gallery, *entry),)
                session._query(session._steps)
        return session

    def _judge(self, image_id: str, liked: bool) -> None:
        if self.model.similarity is not None:
            raise ValueError(
                "images cannot be added to queries of a fusion with a similarity of its own: go on "
                "from the image as the next reference"
            )
        before = self._steps
        steps = (*before, Judgement(image_id, liked, self.gallery.features_of([image_id])))
        self._query(steps)
        self._keep(steps, before)

    def _keep(self, steps: tuple[Step, ...], before: tuple[Step, ...]) -> None:
        if self._steps is not before:
            raise RuntimeError(
                "another thread changed this session meanwhile, so this call is left out: make the "
                "calls of one session one after the other"
            )
        self._steps = steps

    def _query(self, steps: Sequence[Step]) -> Tensor:
        """Return the query [1, E] that the strategy makes of some steps."""
        rounds = [step for step in steps if isinstance(step, Round)]
        judged = _judged(steps)
        none = self.gallery.features_of([])
        queries = torch.cat([step.query for step in rounds]) if rounds else none
        weights = torch.tensor([step.weight for step in rounds], dtype=torch.float64)
        liked, disliked = (
            torch.cat([none, *(j.features for j in judged if j.liked == wanted)]).to(queries.dtype)
            for wanted in (True, False)
        )
        query = self.strategy.combine(queries, weights, liked, disliked)
        if rounds or len(liked):
            check_row(query, f"what combine of {class_name(self.strategy)} returns", "[1, E]")
        return query

    def _search(
        self,
        steps: Sequence[Step],
        k: int,
        exclude_seen: bool,
        where: Mapping[str, Value | Collection[Value]] | None = None,
    ) -> Hits:
        _require_a_wish(steps)
        seen = _seen(steps) if flag("exclude_seen", exclude_seen) else []
        exclude = [seen] if seen else None
        return self.gallery.search(self._query(steps), k, exclude=exclude, where=where)[0]


def _require_model(gallery: Gallery, model: QueryModel) -> None:
    """Raise ValueError where the gallery is of another encoder; compare each state once."""
    encoder, states = model.encoder, _States()
    if isinstance(encoder, nn.Module):
        tensors = chain(encoder.parameters(), encoder.buffers())
        # Torch counts the writes into a tensor, but for those made in inference mode; a sparse
        # tensor has no one place.
        states = [
            (
                t.data_ptr() if t.layout == torch.strided else 0,
                0 if t.is_inference() else t._version,
            )
            for t in tensors
        ]
    known, of_known = _CHECKED.get(gallery, (None, []))
    if known is not encoder or of_known != states:
        gallery.require_model(model)
        _CHECKED[gallery] = encoder, states


def _seen(steps: Sequence[Step]) -> list[str]:
    names = [s.reference if isinstance(s, Round) else s.image_id for s in steps]
    return list(dict.fromkeys(name for name in names if name is not None))


def _judged(steps: Sequence[Step]) -> list[Judgement]:
    """Return the last judgement of each image, which replaces earlier ones."""
    return [*{step.image_id: step for step in steps if isinstance(step, Judgement)}.values()]


def _require_a_wish(steps: Sequence[Step]) -> None:
    asked = any(isinstance(step, Round) for step in steps)
    if not asked and not any(judgement.liked for judgement in _judged(steps)):
        raise ValueError("there is nothing to search for yet: ask, or like an image, first")

"""Sessions of several rounds, scored: those of a dataset, or of a simulated user."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fusecomp._core.abilities import lookups_of, protocol_of, token_sides
from fusecomp._core.checks import flag, ordered, require, require_both, strings, whole_number
from fusecomp._core.identity import describe
from fusecomp._core.task import repeated
from fusecomp.caching import CachedEncoder
from fusecomp.evaluation._rounds_evaluation import RoundsEvaluation, TaskRounds
from fusecomp.evaluation._tasks import scored_tasks
from fusecomp.model import ComposedEncoder
from fusecomp.retrieval import Gallery, Hits, LastRound, SearchSession, Strategy, search_targets
from fusecomp.types import SIDES, Dataset, Task, Triplet

_LAST_ROUND = LastRound()
_KS = (1, 10)
_CHAIN, _GOAL = "chain", "towards a goal"


class SessionDataset(Dataset, Protocol):
    """A dataset whose queries are the rounds of sessions, each with the target of its session."""

    @property
    def protocol(self) -> Mapping[str, str]:
        """The options that make scores comparable or not.

        ``"sessions"`` is ``"chain"`` where text i leads to the next image that is shown, and
        ``"towards a goal"`` where each text says what separates the shown image from the target.
        """
        ...

    def sessions(self) -> Sequence[Sequence[str]]:
        """Return the query ids of each session, in the order of its rounds."""
        ...


class Reply(NamedTuple):
    """Act of a simulated user: judge images that are shown, then ask for a change of one."""

    reference: str
    text: str
    liked: Sequence[str] = ()
    disliked: Sequence[str] = ()


# The ids that are shown, best first, and the target's id -> what the user does.
User = Callable[[Sequence[str], str], Reply]


def evaluate_rounds(
    model: ComposedEncoder,
    dataset: SessionDataset,
    strategy: Strategy = _LAST_ROUND,
    *,
    ks: Sequence[int] = _KS,
    exclude_seen: bool = False,
) -> RoundsEvaluation:
    """Score the sessions of a dataset, such as ``datasets.MultiTurnFashionIQ``, round by round.

    A session that needs an image which ``datasets.drop_images`` has left out is left out too, and
    the protocol says how many are.

    Args:
        model: the encoder and fusion; images and texts are encoded once, or looked up.
        dataset: gives sessions, and the target of each.
        strategy: how the rounds become one query, as in ``SearchSession``.
        ks: for ``recall@k`` and ``hits@k``.
        exclude_seen: leave out the references of the session so far, as ``SearchSession`` does; a
            target that is one of them is not found. What the tasks exclude does not count.

    Raises:
        TypeError: if model or dataset is something else.
        ValueError: if the dataset does not say of which kind its sessions are, a session is empty,
            names an unknown query or differs in its targets, a task keeps no session, or a round
            has several texts; if a strategy of your own tells nothing of its settings; on a wrong
            option; or for any reason of ``SearchSession``.
        FileNotFoundError: if images are missing.
    """
    require_both(model, dataset)
    require("dataset", dataset, "sessions", "a dataset of sessions, see evaluation.SessionDataset")
    kind = protocol_of(dataset).get("sessions")
    if kind not in (_CHAIN, _GOAL):
        raise ValueError(f"protocol['sessions'] must be {_CHAIN!r} or {_GOAL!r}, got {kind!r}")
    exclude_seen, ks = flag("exclude_seen", exclude_seen), _checked(ks)
    seen = "excluded" if exclude_seen else "kept"
    about = {"strategy": describe(strategy), "reference": seen, "seen": seen}
    tasks = scored_tasks(dataset)
    every = ordered("sessions", dataset.sessions(), "lists of query ids")
    sessions = _by_task(tasks, every)
    if lost := len(every) - sum(map(len, sessions)):
        about["missing sessions"] = f"{lost:,} of {len(every):,}"
    if not {*SIDES} <= lookups_of(model.encoder).keys():
        tokens = token_sides(model.encoder, model.fusion_keywords)
        cached = CachedEncoder.build(model.encoder, dataset, tokens=tokens)
        model = ComposedEncoder(cached, model.fusion)
    rounds = max(len(queries) for of_task in sessions for queries in of_task)

    def play(queries: Sequence[Triplet], gallery: Gallery) -> Iterable["_State"]:
        session = SearchSession(model, gallery, strategy)
        for query in queries:
            _ask(session, query, dataset)
            yield _State(session.query, session.seen if exclude_seen else [])

    found = []
    for task, of_task in zip(tasks, sessions, strict=True):
        gallery = Gallery.build(model, task.gallery, dataset.path)
        played = [list(play(queries, gallery)) for queries in of_task]
        targets = [str(queries[0].target_id) for queries in of_task]
        found.append(_ranked(task.name, gallery, model, played, targets, rounds))
    return RoundsEvaluation(found, ks, protocol_of(dataset) | about)


def simulate_rounds(
    model: ComposedEncoder,
    dataset: Dataset,
    user: User,
    strategy: Strategy = _LAST_ROUND,
    *,
    rounds: int = 5,
    shown: int = 1,
    ks: Sequence[int] = _KS,
) -> RoundsEvaluation:
    """Let a simulated user ask until the target is shown, and score each round.

    The first round is the dataset's query, the others are the user's: sessions towards a goal.
    Results leave out what was seen: references and judged images.

    Args:
        model: the encoder and fusion; the encoder must be able to encode the user's texts.
        dataset: has known targets.
        user: ``user(shown ids, target id) -> Reply``, called while the target is not shown.
        strategy: how the rounds become one query, as in ``SearchSession``.
        rounds: the most rounds of a session.
        shown: the number of images that the user sees.
        ks: for ``recall@k`` and ``hits@k``.

    Raises:
        TypeError: if model or dataset is something else, or user returns no ``Reply``.
        ValueError: if a target is unknown or a query has several texts; if a strategy of your own
            tells nothing of its settings; on a wrong option; or for any reason of
            ``SearchSession``.
        FileNotFoundError: if images are missing.
    """
    require_both(model, dataset)
    rounds, shown = whole_number("rounds", rounds, 1), whole_number("shown", shown, 1)
    ks, named = _checked(ks), describe(strategy)
    about = {"sessions": f"{_GOAL}, simulated", "strategy": named, "shown": str(shown)}
    if not callable(user):
        raise TypeError(
            f"user must be a function (shown ids, target id) -> Reply, got {user!r:.80}"
        )

    def play(query: Triplet, gallery: Gallery) -> Iterable["_State"]:
        session, target = SearchSession(model, gallery, strategy), str(query.target_id)
        hits = _ask(session, query, dataset, shown)
        yield _State(session.query, session.seen)
        for _ in range(rounds - 1):
            if target in hits.ids or not hits.ids:
                return
            hits = _follow(session, user(hits.ids, target), shown)
            yield _State(session.query, session.seen)

    found = []
    for task in scored_tasks(dataset):
        gallery = Gallery.build(model, task.gallery, dataset.path)
        played = [list(play(query, gallery)) for query in task.queries]
        targets = [str(query.target_id) for query in task.queries]
        found.append(_ranked(task.name, gallery, model, played, targets, rounds))
    options = protocol_of(dataset) | about | {"reference": "excluded", "seen": "excluded"}
    return RoundsEvaluation(found, ks, options)


class _State(NamedTuple):
    """The query of a session after a round, and what it does not find."""

    query: Tensor
    seen: list[str]


def _ask(session: SearchSession, query: Triplet, dataset: Dataset, k: int = 1) -> Hits:
    """Ask a dataset's query; its reference may lie outside the gallery."""
    if len(query.texts) > 1:
        raise ValueError(
            f"query {query.query_id!r} has {len(query.texts)} texts, a round takes one"
        )
    if query.reference_id in session.gallery or "image" in lookups_of(session.model.encoder):
        return session.ask(query.reference_id, query.texts[0], k=k)
    return session.ask(Path(dataset.path(query.reference_id)), query.texts[0], k=k)


def _follow(session: SearchSession, reply: Reply, k: int) -> Hits:
    """Judge and ask as a simulated user replies."""
    if not isinstance(reply, Reply):
        raise TypeError(f"user must return a Reply, got {reply!r:.80}")
    for image_id in strings("liked", reply.liked):
        session.like(image_id)
    for image_id in strings("disliked", reply.disliked):
        session.dislike(image_id)
    return session.ask(reply.reference, reply.text, k=k)


def _ranked(
    name: str,
    gallery: Gallery,
    model: ComposedEncoder,
    played: Sequence[Sequence[_State]],
    targets: Sequence[str],
    rounds: int,
) -> TaskRounds:
    """Rank the target of each session after each round; one that has ended keeps its last rank."""
    asked = torch.tensor([len(states) for states in played])
    every = [state for states in played for state in states]
    query = torch.cat([state.query for state in every])
    seen = [gallery.positions([i for i in state.seen if i in gallery]) for state in every]
    ranks = search_targets(
        query,
        gallery.features.to(query.dtype),
        gallery.positions(targets).repeat_interleave(asked),
        1,
        pad_sequence([torch.tensor([-1]), *seen], True, -1)[1:],
        similarity=model.similarity,
    ).ranks.cpu()
    first = asked.cumsum(0) - asked
    rows = first.unsqueeze(1) + torch.arange(rounds).minimum(asked.unsqueeze(1) - 1)
    return TaskRounds(name, ranks[rows], asked, len(gallery))


def _by_task(tasks: Sequence[Task], sessions: Sequence[Sequence[str]]) -> list[list[list[Triplet]]]:
    """Return the queries of each session, by task, without sessions that lack a query."""
    every = [(place, query) for place, task in enumerate(tasks) for query in task.queries]
    for query_id in repeated([query.query_id for _, query in every]):
        raise ValueError(f"two tasks have the query {query_id!r}, so sessions cannot name it")
    known = {query.query_id: (place, query) for place, query in every}
    missing = {query_id for task in tasks for query_id in task.missing_queries}
    found: list[list[list[Triplet]]] = [[] for _ in tasks]
    for number, names in enumerate(sessions):
        ids = strings(f"session {number}", names)
        if not missing.isdisjoint(ids):
            continue
        for query_id in ids:
            if query_id not in known:
                raise ValueError(
                    f"session {number} names {query_id!r}, which is no query of a task"
                )
        places, queries = zip(*(known[i] for i in ids), strict=True) if ids else ((), ())
        if len({(place, q.target_id) for place, q in zip(places, queries, strict=True)}) != 1:
            raise ValueError(
                f"session {number} must have rounds of one task and one target, got {ids}"
            )
        found[places[0]].append(list(queries))
    for task, of_task in zip(tasks, found, strict=True):
        if not of_task:
            lacking = ": each lacks an image that was dropped" if task.missing_queries else ""
            raise ValueError(f"no session is of task {task.name!r}{lacking}")
    return found


def _checked(ks: Sequence[int]) -> list[int]:
    found = [whole_number("k", k, 1) for k in ordered("ks", ks, "numbers")]
    if not found or len({*found}) < len(found):
        raise ValueError(f"ks must be distinct numbers, at least one, got {found}")
    return found

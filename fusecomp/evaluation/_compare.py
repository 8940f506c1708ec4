import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fusecomp._core.checks import shown, strings, whole_number
from fusecomp.evaluation._bootstrap import checked_draws, interval_of, resampled
from fusecomp.evaluation._evaluate import Evaluation, compute_metrics, require_evaluation
from fusecomp.evaluation._html_table import html_table
from fusecomp.evaluation._protocol import protocol_differences, warn_of_differences
from fusecomp.evaluation._rank import Ranking
from fusecomp.types import TaskRanking

_TEXT_WIDTH = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of A and of B in per cent, their difference B - A, and its 95 % interval."""

    a: float
    b: float
    difference: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Change:
    """A query and its target's rank in A and in B; -1 where it was left out of the ranking."""

    task: str
    query_id: str
    reference_id: str
    texts: tuple[str, ...]
    target_id: str | None
    rank_a: int
    rank_b: int

    def __str__(self) -> str:
        ranks = " -> ".join(f"{r:,}" if r > 0 else "left out" for r in (self.rank_a, self.rank_b))
        text = " / ".join(self.texts)
        text = text if len(text) <= _TEXT_WIDTH else f"{text[: _TEXT_WIDTH - 3]}..."
        return f"{self.query_id}: rank {ranks}: {text}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Differences of two evaluations, as ``compare`` gives them; prints as a table.

    Args:
        names: the names of the two evaluations.
        differences: the difference of each metric by name.
        better: the queries whose target rose most from A to B, by the ratio of its ranks.
        worse: the queries whose target fell most.
        summaries: the sizes of the tasks and the protocol of both.
        warnings: reasons why the scores are not comparable; empty if there is none.
        resamples: the number of resamples.
        seed: the seed of the resamples.
    """

    names: tuple[str, str]
    differences: Mapping[str, Difference]
    better: Sequence[Change]
    worse: Sequence[Change]
    summaries: tuple[tuple[str, str], tuple[str, str]]
    warnings: Sequence[str]
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as values that JSON has."""
        return asdict(self)

    def __str__(self) -> str:
        width = max(map(len, self.differences))
        lines = [f"{'':<{width}}  {'A':>6}  {'B':>6}  {'B - A':>7}    95 % interval"]
        for name, a, b, difference, interval, star in self._cells():
            line = f"{name:<{width}}  {a:>6}  {b:>6}  {difference:>7}    {interval}"
            lines.append(f"{line:<{width + 48}}{star}".rstrip())
        return "\n".join([*self._heading(), "", *lines, *self._footing()])

    def _repr_html_(self) -> str:
        head = ["", "A", "B", "B - A", "95 % interval", ""]
        return html_table(head, self._cells(), [*self._heading(), *self._footing()])

    def _cells(self) -> Iterator[tuple[str, ...]]:
        for name, d in self.differences.items():
            values = f"{d.a:.2f}", f"{d.b:.2f}", f"{d.difference:+.2f}"
            yield name, *values, f"[{d.low:+.2f}, {d.high:+.2f}]", "*" if d.clear else ""

    def _heading(self) -> Iterator[str]:
        one, other = self.summaries
        for letter, name, summary in zip("AB", self.names, self.summaries, strict=True):
            yield f"{letter}  {name}"
            if letter == "B" or one != other:
                yield from (f"   {line}" for line in summary)
        yield from (f"NOT COMPARABLE  {warning}" for warning in self.warnings)

    def _footing(self) -> Iterator[str]:
        yield (
            f"in per cent; paired bootstrap over queries, {self.resamples:,} resamples, seed "
            f"{self.seed}; * the interval leaves out 0"
        )
        for title, changes in (("better", self.better), ("worse", self.worse)):
            if changes:
                yield from ("", f"{title} in B")
                yield from (f"  {change}" for change in changes)


def compare(
    a: Evaluation,
    b: Evaluation,
    *,
    names: tuple[str, str] = ("A", "B"),
    resamples: int = 10_000,
    seed: int = 0,
    changes: int = 10,
) -> Comparison:
    """Compare two evaluations of the same queries: differences, intervals, the largest changes.

    Each resample draws the same queries for both (paired bootstrap). Queries that only one of the
    two lacks because of a missing image are left out of both.

    Args:
        a: the first evaluation.
        b: the second one; differences are B - A.
        names: their names in the table.
        resamples: the number of resamples.
        seed: the same one gives the same intervals.
        changes: the number of queries to list whose target rose, and whose target fell.

    Raises:
        TypeError: if one is no evaluation.
        ValueError: if datasets, tasks, metrics or queries differ, or an option is invalid.

    Warns:
        ProtocolWarning: if protocols, galleries, excluded images or subsets differ; it names the
            difference.
    """
    require_evaluation("a", a)
    require_evaluation("b", b)
    if len(both := strings("names", names)) != 2:
        raise ValueError(f"names must be two strings, got {shown(names)}")
    names = both[0], both[1]
    resamples, seed = checked_draws(resamples, seed)
    changes = whole_number("changes", changes, 0)
    a, b = _paired(a, b, names)
    notes = protocol_differences(a.protocol, b.protocol)
    notes += _ranked_otherwise(a.ranking, b.ranking)
    if notes:
        warn_of_differences(*names, notes)
    in_a, in_b = resampled([a.ranking, b.ranking], resamples, seed)
    differences = {
        name: Difference(a[name], b[name], b[name] - a[name], *interval_of(in_b[name] - in_a[name]))
        for name in a
    }
    moved = sorted(_changes(a.ranking, b.ranking), key=lambda pair: pair[0])
    return Comparison(
        names,
        differences,
        better=[change for step, change in moved[:changes] if step < 0],
        worse=[change for step, change in moved[::-1][:changes] if step > 0],
        summaries=(a.ranking.summary(), b.ranking.summary()),
        warnings=notes,
        resamples=resamples,
        seed=seed,
    )


def _paired(a: Evaluation, b: Evaluation, names: tuple[str, str]) -> tuple[Evaluation, Evaluation]:
    """Reduce both to the queries that both have, in one order."""
    for kind, one, other in (
        ("dataset", a.protocol.get("dataset"), b.protocol.get("dataset")),
        ("tasks", sorted(a.ranking), sorted(b.ranking)),
        ("metrics", sorted(a), sorted(b)),
        ("summaries", *(each.ranking.tasks[0].task.summaries for each in (a, b))),
    ):
        if one != other:
            raise ValueError(
                f"{names[0]} has the {kind} {one} and {names[1]} {other}: give two evaluations of "
                "the same queries"
            )
    # Other captions give the same queries other texts; that is a difference of the protocols.
    same_texts = a.protocol.get("captions") == b.protocol.get("captions")
    pairs = [_common(a.ranking[task], b.ranking[task], names, same_texts) for task in a.ranking]
    in_a, in_b = zip(*pairs, strict=True)
    reduced = replace(a.ranking, tasks=in_a), replace(b.ranking, tasks=in_b)
    return compute_metrics(reduced[0]), compute_metrics(reduced[1])


def _common(
    a: TaskRanking, b: TaskRanking, names: tuple[str, str], same_texts: bool
) -> tuple[TaskRanking, TaskRanking]:
    rows_a, rows_b = (
        {query.query_id: row for row, query in enumerate(found.task.queries)} for found in (a, b)
    )
    missing = {*a.task.missing_queries, *b.task.missing_queries}
    for query_id in [*rows_a, *rows_b]:
        if (query_id in rows_a) != (query_id in rows_b) and query_id not in missing:
            name = names[query_id in rows_b]
            raise ValueError(
                f"only {name} has the query {query_id!r} of task {a.task.name!r}: these are not "
                "the same queries"
            )
    both = [query_id for query_id in rows_a if query_id in rows_b]
    if not both:
        raise ValueError(f"{names[0]} and {names[1]} share no query of task {a.task.name!r}")
    a, b = a.select([rows_a[i] for i in both]), b.select([rows_b[i] for i in both])
    for queries in zip(a.task.queries, b.task.queries, strict=True):
        one, two = (
            (query.reference_id, query.target_id, *(query.texts if same_texts else ()))
            for query in queries
        )
        if one != two:
            raise ValueError(
                f"query {queries[0].query_id!r} of task {a.task.name!r} is {one} in {names[0]} and "
                f"{two} in {names[1]}: these are not the same queries"
            )
    return a, b


def _ranked_otherwise(a: Ranking, b: Ranking) -> Iterator[str]:
    """Yield how galleries, excluded images and subsets differ beyond the protocols."""
    if any(a.protocol.get(name) != b.protocol.get(name) for name in ("gallery", "missing")):
        return
    for name, found in a.items():
        task, other, suffix = found.task, b[name].task, f" of {name}" if name else ""
        if set(task.gallery) != set(other.gallery):
            sizes = f"{len(task.gallery):,} / {len(other.gallery):,}"
            yield f"gallery{suffix} {sizes} images, not the same ones"
        for words, *rows in (
            ("what is excluded", task.exclude, other.exclude),
            ("the subsets", task.subsets, other.subsets),
            ("the relevant images", task.relevant, other.relevant),
        ):
            one, two = (None if ids is None else [*map(set, ids)] for ids in rows)
            if a.protocol == b.protocol and one != two:
                yield f"{words}{suffix}, not the same images"


def _changes(a: Ranking, b: Ranking) -> Iterator[tuple[float, Change]]:
    """Yield each query with the logarithm of its target's rank in B divided by that in A."""
    for name, found in a.items():
        before, after = (() if r is None else r.tolist() for r in (found.ranks, b[name].ranks))
        for query, one, other in zip(found.task.queries, before, after, strict=True):
            last = len(found.task.gallery) + 1  # where a target counts that was left out
            step = math.log((other if other > 0 else last) / (one if one > 0 else last))
            fields = query.query_id, query.reference_id, query.texts, query.target_id
            yield step, Change(name, *fields, one, other)

"""Answers to what the page asks: a search, an upload, a task, a thumbnail. Knows no HTTP."""

import json
import random
import threading
from collections.abc import Callable, Sequence
from copy import copy
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import fusecomp as fc
from fusecomp.retrieval import Judgement, MeanOfRounds, Rocchio, Round, Strategy

STRATEGIES: dict[str, Strategy] = {
    "the last round": Rocchio(),
    "the mean of all rounds": Rocchio(rounds=MeanOfRounds()),
}
MOST_STEPS, MOST_RESULTS, LONGEST_TEXT, LARGEST_WEIGHT = 50, 60, 300, 100
FIRST_RANKS = 1000  # that are looked at for a target, before all are
MOST_REMEMBERED = 2048  # steps of any session, some 10 kB each at a width of 640
# Pillow opens more, among them PostScript, which it gives to another program.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP")
THUMBNAIL_SIDE, MOST_THUMBNAILS = 200, 4096
_LAST = threading.local()  # the gate of this thread's last query


class Answers:
    """Answer what the page asks, from any number of threads.

    A session comes with each question, and no answer depends on an earlier one.

    Args:
        model: its encoder reads any text, and opens images for uploads.
        gallery: images of this model's encoder.
        path: image id -> file, for the thumbnails.
        triplets: queries with a known target, which the page offers as tasks.

    Raises:
        ValueError: as ``fc.SearchSession``.
    """

    def __init__(
        self,
        model: fc.ComposedEncoder,
        gallery: fc.Gallery,
        path: Callable[[str], Path],
        triplets: Sequence[fc.Triplet] = (),
    ) -> None:
        self.model, self.path, self.key = model.eval(), path, gallery.key
        self._empty = fc.SearchSession(model, gallery).to_json()  # refuses what does not fit
        # A gallery with a key asks the encoder for its own at each session, which takes long.
        self.gallery = copy(gallery)
        self.gallery.key = ""
        self.rows = {name: row for row, name in enumerate(gallery.image_ids) if name is not None}
        self.names = list(self.rows)
        known = self.rows.keys()
        self.tasks = [t for t in triplets if t.target_id in known and t.reference_id in known]
        late = model.similarity is not None  # its queries cannot be added
        self.strategies = {repr(s): s for s in STRATEGIES.values() if not (late and s.adds_rounds)}
        self.thumbnail = lru_cache(MOST_THUMBNAILS)(self._thumbnail)
        self._step = lru_cache(MOST_REMEMBERED)(self._read_step)
        if isinstance(model.fusion, fc.Combiner):
            model.fusion.dynamic_scalar.register_forward_hook(_keep_gate)

    def about(self) -> dict[str, Any]:
        """Return what the page must know before the first question."""
        return {
            "images": len(self.gallery),
            "tasks": len(self.tasks),
            "session": json.loads(self._empty),
            "strategies": [
                {"value": repr(strategy), "name": name, "weighs": strategy.adds_rounds}
                for name, strategy in STRATEGIES.items()
                if repr(strategy) in self.strategies
            ],
        }

    def sample(self) -> dict[str, Any]:
        """Return random images to start from."""
        names = random.sample(self.names, min(24, len(self.names)))
        return {"results": [{"id": name, "row": self.rows[name]} for name in names]}

    def task(self, number: int) -> dict[str, Any]:
        """Return the reference and the texts of a query whose target is known.

        Raises:
            ValueError: if there is no such task.
        """
        task = self._task(number)
        row = self.rows[task.reference_id]
        return {"id": task.reference_id, "row": row, "texts": [*task.texts]}

    def search(self, content: bytes) -> dict[str, Any]:
        """Return the results of a session, and what is known of its steps and its target.

        Args:
            content: JSON ``{"session": what SearchSession.to_json wrote, "task": number or null,
                "count": number of results}``.

        Raises:
            ValueError: if it is anything else, or as ``fc.SearchSession.from_json``.
        """
        given, task, count = self._read(content)
        history, gates = self._history(given)
        strategy = self.strategies[given["strategy"]]
        session = fc.SearchSession(self.model, self.gallery, strategy, history=history)
        target = None if task is None else self._task(task).target_id
        hits = session.results(count if target is None else FIRST_RANKS)
        found = [*zip(hits.ids, hits.positions.tolist(), hits.scores.tolist(), strict=True)][:count]
        names = [s.reference if isinstance(s, Round) else s.image_id for s in history]
        return {
            "results": [{"id": name, "row": row, "score": score} for name, row, score in found],
            "steps": [
                {"row": self.rows.get(name or ""), "gate": gate}
                for name, gate in zip(names, gates, strict=True)
            ],
            "target": target,
            "rank": None if target is None else self._rank(session, hits.ids, target),
        }

    def upload(self, content: bytes) -> dict[str, str]:
        """Return the features of an image, as a session's JSON keeps them.

        Raises:
            ValueError: if it is no image, one of an odd format or with too many pixels, or the
                encoder cannot take it.
        """
        file = BytesIO(content)
        try:
            image = fc.images.open_image(file)
            known = image.format in FORMATS
            if known:
                image.load()
        except Exception as error:  # Pillow's are of many kinds
            reason = fc.images.why_unreadable(file, error)
            raise ValueError(f"the upload cannot be read: {reason}") from error
        if not known:
            raise ValueError(f"the upload is {image.format}; take one of {', '.join(FORMATS)}")
        session = fc.SearchSession(self.model, self.gallery)
        # A text comes with it, as a fusion with a similarity of its own takes no image alone.
        session.ask(image, "image", k=1)
        step = json.loads(session.to_json())["steps"][0]
        return {"features": step["features"]}

    def _read(self, content: bytes) -> tuple[dict[str, Any], int | None, int]:
        """Return the session, the task and the number of results; refuse what costs too much."""
        try:
            wish = json.loads(content)
            given, task, count = wish["session"], wish["task"], wish["count"]
            steps, key, name = given["steps"], given["key"], given["strategy"]
            texts = [step.get("text") or "" for step in steps]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ValueError("this is no JSON of a session: start over") from None
        if len(steps) > MOST_STEPS:
            raise ValueError(f"the session has {len(steps)} steps; {MOST_STEPS} are the most")
        for text in texts:
            if len(str(text)) > LONGEST_TEXT:
                raise ValueError(
                    f"a text has {len(str(text))} characters; {LONGEST_TEXT} are the most"
                )
        if type(count) is not int or not 0 < count <= MOST_RESULTS:
            raise ValueError(f"count must be a whole number up to {MOST_RESULTS}, got {count!r}")
        if str(name) not in self.strategies:
            raise ValueError(f"there is no strategy {name!r:.80}, only {[*self.strategies]}")
        if key != self.key:
            raise ValueError("this session was held with another model: load the page anew")
        return given, task, count

    def _history(self, given: dict[str, Any]) -> tuple[list[Round | Judgement], list[float | None]]:
        """Return the steps of a session and their gates; refuse those that are not as written."""
        history: list[Round | Judgement] = []
        gates = []
        for step in given["steps"]:
            weight = step.get("weight", 1.0)
            if type(weight) not in (int, float) or not abs(weight) <= LARGEST_WEIGHT:
                raise ValueError(f"a weight must be a number up to 100, got {weight!r:.80}")
            # Read by itself and with weight 1, so that a change elsewhere encodes nothing again.
            alone = {**step, "weight": 1.0} if "weight" in step else step
            only = {**given, "key": "", "strategy": repr(Rocchio()), "steps": [alone]}
            found, gate = self._step(json.dumps(only))
            if isinstance(found, Round):
                found = found._replace(weight=float(weight))
            history.append(found)
            gates.append(gate)
        return history, gates

    def _read_step(self, text: str) -> tuple[Round | Judgement, float | None]:
        """Return the only step of a session's JSON, and the Combiner's weight of its text."""
        _LAST.gate = None
        (step,) = fc.SearchSession.from_json(self.model, self.gallery, text).history
        gate = _LAST.gate
        return step, None if gate is None else float(gate)

    def _task(self, number: int) -> fc.Triplet:
        if type(number) is not int or not 0 <= number < len(self.tasks):
            raise ValueError(f"there is no task {number!r:.80}; there are {len(self.tasks)}")
        return self.tasks[number]

    def _rank(self, session: fc.SearchSession, best: list[str], target: str) -> int | None:
        """Return the target's rank among what the session has not shown or judged yet."""
        if target not in best:  # most are, and all take longer
            seen = [name for name in session.seen if name != target]
            best = self.gallery.search(session.query, len(self.gallery), exclude=[seen])[0].ids
        return best.index(target) + 1 if target in best else None

    def _thumbnail(self, row: int) -> bytes | None:
        """Return a small JPEG of the image at a position; None where there is none."""
        names = self.gallery.image_ids
        name = names[row] if 0 <= row < len(names) else None
        if name is None:
            return None
        out = BytesIO()
        with self.path(name).open("rb") as file:
            image = fc.images.open_image(file)
            image.draft("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))  # JPEGs: decoded smaller
            small = fc.images.rgb(image)
            small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            small.save(out, "JPEG", quality=88)
        return out.getvalue()


# A function of the module, as the user's fusion is copied and pickled together with its hooks.
def _keep_gate(layer: nn.Module, joint: tuple[Tensor], gate: Tensor) -> None:
    _LAST.gate = gate.detach()

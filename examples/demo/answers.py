"""What the page asks: a search, an upload, a task, a thumbnail. Knows nothing of HTTP."""

import json
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import UnidentifiedImageError

import fusecomp as fc
from fusecomp.retrieval import Judgement, MeanOfRounds, Rocchio, Round, Strategy

STRATEGIES: dict[str, Strategy] = {
    "the last round": Rocchio(),
    "the mean of all rounds": Rocchio(rounds=MeanOfRounds()),
}
MOST_STEPS, MOST_RESULTS, LONGEST_TEXT = 50, 60, 300
# Pillow opens more, among them PostScript, which it gives to another program.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP")
THUMBNAIL_SIDE, MOST_THUMBNAILS = 224, 4096


class Answers:
    """Answer what the page asks, from any number of threads; nothing is kept of a session.

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
        self.model, self.gallery, self.path = model.eval(), gallery, path
        self.rows = {name: row for row, name in enumerate(gallery.image_ids) if name is not None}
        self.names = list(self.rows)
        known = self.rows.keys()
        self.tasks = [t for t in triplets if t.target_id in known and t.reference_id in known]
        late = model.similarity is not None  # its queries cannot be added
        self.strategies = {repr(s): s for s in STRATEGIES.values() if not (late and s.adds_rounds)}
        self._empty = fc.SearchSession(model, gallery).to_json()
        self.thumbnail = lru_cache(MOST_THUMBNAILS)(self._thumbnail)

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
        session, task, count = self._read(content)
        hits = session.results(count)
        found = zip(hits.ids, hits.positions.tolist(), hits.scores.tolist(), strict=True)
        rounds = iter(self._gates([s for s in session.history if isinstance(s, Round)]))
        steps = [
            {"row": self.rows.get(step.image_id)}
            if isinstance(step, Judgement)
            else {"row": self.rows.get(step.reference or ""), "gate": next(rounds)}
            for step in session.history
        ]
        target = None if task is None else self._task(task).target_id
        return {
            "results": [{"id": name, "row": row, "score": score} for name, row, score in found],
            "steps": steps,
            "target": target,
            "rank": None if target is None else self._rank(session, target),
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
        except UnidentifiedImageError as error:
            raise ValueError(f"the upload is {fc.images.why_unreadable(file, error)}") from None
        if image.format not in FORMATS:
            raise ValueError(f"the upload is {image.format}; take one of {', '.join(FORMATS)}")
        session = fc.SearchSession(self.model, self.gallery)
        # A text comes with it, as a fusion with a similarity of its own takes no image alone.
        try:
            session.ask(image, "image", k=1)
        except fc.ImageError as error:
            raise ValueError(f"the upload cannot be read: {error.__cause__}") from None
        step = json.loads(session.to_json())["steps"][0]
        return {"features": step["features"]}

    def _read(self, content: bytes) -> tuple[fc.SearchSession, int | None, int]:
        try:
            wish = json.loads(content)
            given, task, count = wish["session"], wish["task"], wish["count"]
            steps, name = given["steps"], given["strategy"]
            texts = [step.get("text") or "" for step in steps]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ValueError("this is no JSON of a session: start over") from None
        if len(steps) > MOST_STEPS:
            raise ValueError(f"the session has {len(steps)} steps; {MOST_STEPS} are the most")
        for text in texts:
            if len(str(text)) > LONGEST_TEXT:
                raise ValueError(f"a text has {len(text)} characters; {LONGEST_TEXT} are the most")
        if type(count) is not int or not 0 < count <= MOST_RESULTS:
            raise ValueError(f"count must be a whole number up to {MOST_RESULTS}, got {count!r}")
        if str(name) not in self.strategies:
            raise ValueError(f"there is no strategy {name!r:.80}, only {[*self.strategies]}")
        strategy = self.strategies[str(name)]
        text = json.dumps(given)
        return fc.SearchSession.from_json(self.model, self.gallery, text, strategy), task, count

    def _task(self, number: int) -> fc.Triplet:
        if type(number) is not int or not 0 <= number < len(self.tasks):
            raise ValueError(f"there is no task {number!r:.80}; there are {len(self.tasks)}")
        return self.tasks[number]

    def _rank(self, session: fc.SearchSession, target: str) -> int | None:
        """Return the target's rank among what the session has not shown or judged yet."""
        seen = {s.reference if isinstance(s, Round) else s.image_id for s in session.history}
        exclude = [[name for name in seen if name is not None and name != target]]
        ids = self.gallery.search(session.query, len(self.gallery), exclude=exclude)[0].ids
        return ids.index(target) + 1 if target in ids else None

    def _gates(self, rounds: list[Round]) -> list[float | None]:
        """Return the Combiner's weight of the text for each round with an image and a text."""
        fusion = self.model.fusion
        pairs = [(r.features, r.text) for r in rounds if r.features is not None and r.text]
        if not isinstance(fusion, fc.Combiner) or not pairs:
            return [None] * len(rounds)
        with torch.no_grad():
            texts = self.model.encoder.encode_text([text for _, text in pairs])
            images = torch.cat([features for features, _ in pairs])
            gates = iter(fusion.gate(images.to(texts), texts).flatten().tolist())
        return [next(gates) if r.features is not None and r.text else None for r in rounds]

    def _thumbnail(self, row: int) -> bytes | None:
        """Return a small JPEG of the image at a position; None where there is none."""
        names = self.gallery.image_ids
        name = names[row] if 0 <= row < len(names) else None
        if name is None:
            return None
        out = BytesIO()
        with self.path(name).open("rb") as file:
            image = fc.images.open_image(file)
            image.draft("RGB", (2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE))  # JPEGs: decoded smaller
            small = fc.images.rgb(image)
            small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            small.save(out, "JPEG", quality=88)
        return out.getvalue()

"""Multi-turn FashionIQ: its files, the dataset, and a whole folder against what is published."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

from fusecomp._core.checks import as_path, flag, is_blank
from fusecomp.datasets._alike import require_text, warn_of_missing_words
from fusecomp.datasets._entries import Entry, field, raise_first, read_objects, require_listed
from fusecomp.datasets._fashioniq import checked_categories
from fusecomp.datasets._fashioniq_files import (
    CATEGORIES,
    FashionIQImages,
    annotation_files,
    clean,
    read_pairs,
    read_split,
)
from fusecomp.datasets._verify import Annotations, make_report
from fusecomp.datasets._verify_report import VerifyReport
from fusecomp.types import Task, Triplet

_SOURCE = "https://github.com/yfyuan01/MultiturnFashionRetrieval"
# images of the validation split, rounds
_PUBLISHED = {"dress": (2562, 2468), "shirt": (1770, 1545), "toptee": (1942, 1600)}


class MultiTurnFashionIQ:
    """Validation sessions of Multi-turn FashionIQ in their published layout; opens no image.

    ``root`` holds ``data/CATEGORY.val.json`` and ``image_splits/split.CATEGORY.val.json``. A
    session is a chain of two to four rounds: text i says what separates image i from image i + 1,
    the last text leads to the target. The queries of its tasks are the rounds, whose target is the
    session's (``evaluation.evaluate_rounds`` scores them); its triplets are the steps from image to
    image. The captions of a round are joined as ``FashionIQ(captions="both")`` joins two.

    The chains were made of FashionIQ's triplets, without regard to its splits: 72 to 79 % of the
    sessions hold a step that is a triplet of FashionIQ's train split, so a model that was trained
    on it has seen these. ``without_training_triplets`` leaves such sessions out, and the protocol
    says which it is.

    Reference:
        Yuan, Lam, "Conversational fashion image retrieval via multiturn natural language feedback",
        SIGIR 2021, https://arxiv.org/abs/2106.04128.

    Args:
        root: the folder.
        fashioniq_root: the folder of FashionIQ, as ``FashionIQ`` reads it: it holds the images, and
            the train captions that ``without_training_triplets`` needs.
        categories: some of ``"dress"``, ``"shirt"``, ``"toptee"``; each is one task.
        without_training_triplets: leave out sessions with a step that FashionIQ trains on.

    Raises:
        TypeError: if a folder is no path.
        FileNotFoundError: if an annotation file is missing.
        ValueError: on an unknown category, a broken annotation file, or if no session is left.
    """

    def __init__(
        self,
        root: str | Path,
        fashioniq_root: str | Path,
        categories: Sequence[str] = CATEGORIES,
        *,
        without_training_triplets: bool = False,
    ) -> None:
        self.root, self.categories = as_path("root", root), checked_categories(categories)
        self.fashioniq_root = as_path("fashioniq_root", fashioniq_root)
        self.without_training_triplets = flag(
            "without_training_triplets", without_training_triplets
        )
        self._galleries: dict[str, list[str]] = {}
        self._sessions: dict[str, list[list[Entry]]] = {}
        trained = _train_pairs(self.fashioniq_root) if self.without_training_triplets else set()
        for category in self.categories:
            self._read(category, trained)
        # Every image of the galleries, once, in the order of the split files.
        self.image_ids = tuple(dict.fromkeys(chain.from_iterable(self._galleries.values())))

    def _read(self, category: str, trained: set[tuple[str, str | None]]) -> None:
        split_path, path = _files(self.root, category)
        image_ids = list(dict.fromkeys(read_split(split_path)))
        steps = read_steps(path, category)
        require_listed(path, steps, image_ids, f"is not in {split_path}")
        raise_first(path, _blank(steps))
        sessions = _by_session(steps)
        if not sessions:
            raise ValueError(f"{path} holds no sessions; fetch it again")
        sessions = [steps for steps in sessions if not _holds(steps, trained)]
        if not sessions:
            raise ValueError(f"without_training_triplets leaves no session of {path}")
        warn_of_missing_words((f"{path}, {s.where}: a caption", t) for s in steps for t in s.texts)
        self._galleries[category], self._sessions[category] = image_ids, sessions

    @classmethod
    def verify(
        cls,
        root: str | Path,
        fashioniq_root: str | Path,
        *,
        decode: bool = False,
        num_workers: int | None = None,
    ) -> VerifyReport:
        """List all that is wrong with both folders; reading raises the first of it.

        A note says how many sessions hold a step that is a triplet of FashionIQ's train split.
        Takes and raises what ``FashionIQ.verify`` does.
        """
        inspect = partial(_inspect, fashioniq_root=as_path("fashioniq_root", fashioniq_root))
        return make_report(as_path("root", root), inspect, decode, num_workers)

    @property
    def protocol(self) -> Mapping[str, str]:
        """The options that make scores comparable or not."""
        return {
            "dataset": "Multi-turn FashionIQ",
            "split": "val",
            "sessions": "chain",
            "FashionIQ's training triplets": "left out"
            if self.without_training_triplets
            else "kept",
            "gallery": "split",
            "reference": "kept",
        }

    def path(self, image_id: str) -> Path:
        """Return where the image is, or would be, in FashionIQ's folder.

        Raises:
            ValueError: as ``FashionIQ.path``.
        """
        if image_id not in self._known:
            raise ValueError(f"unknown image {image_id!r}: in no gallery of the sessions")
        return self._images.path(image_id)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.image_ids)

    @cached_property
    def _images(self) -> FashionIQImages:
        return FashionIQImages(self.fashioniq_root)

    def sessions(self) -> list[tuple[str, ...]]:
        """Return the query ids of each session, in the order of its rounds."""
        rows = chain.from_iterable(self._sessions.values())
        return [tuple(step.query_id for step in steps) for steps in rows]

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[Triplet]:
        """Return the steps from image to image, in the order of the files; always the same."""
        rows = chain.from_iterable(self._sessions.values())
        return [_query(step, step.target) for steps in rows for step in steps]

    def texts(self) -> list[str]:
        """Return every text, once."""
        return list(dict.fromkeys(triplet.texts[0] for triplet in self.triplets()))

    def tasks(self) -> list[Task]:
        """Return one task a category: R@10 and R@50 of each round for the session's target."""
        return [
            Task(
                category,
                [_query(step, steps[-1].target) for steps in sessions for step in steps],
                self._galleries[category],
            )
            for category, sessions in self._sessions.items()
        ]

    def __len__(self) -> int:
        return sum(len(steps) for sessions in self._sessions.values() for steps in sessions)

    def __repr__(self) -> str:
        count = sum(map(len, self._sessions.values()))
        return f"MultiTurnFashionIQ({str(self.root)!r}, {count} sessions of {len(self)} rounds)"


def _query(step: Entry, target: str | None) -> Triplet:
    first, *others = filter(None, map(clean, step.texts))
    text = " and ".join((first.capitalize(), *others))
    return Triplet(step.query_id, step.reference, (text,), target)


def _files(root: Path, category: str) -> tuple[Path, Path]:
    """Return the split file and the file of sessions."""
    return (
        root / "image_splits" / f"split.{category}.val.json",
        root / "data" / f"{category}.val.json",
    )


def read_steps(path: Path, category: str) -> list[Entry]:
    """Return the steps of all sessions of a file, from image to image, session by session."""
    steps = []
    for number, (where, row) in enumerate(read_objects(path)):
        target = _image(field(row, "target", list, where), "target", where, 2)
        turns = field(row, "reference", list, where)
        if not turns:
            raise ValueError(f"{where}: the session has no rounds; fetch the file again")
        images = [_image(turn, "reference", where, 3) for turn in turns] + [target]
        for place, turn in enumerate(turns):
            captions = turn[1]
            if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
                raise ValueError(
                    f"{where}: captions must be a list of strings, got {captions!r:.80}"
                )
            for caption in captions:
                require_text(where, "a caption", caption, "write the captions themselves")
            steps.append(
                Entry(
                    where=f"entry {number}, round {place}",
                    query_id=f"{category}/{number}/{place}",
                    reference=images[place],
                    texts=tuple(captions),
                    targets=(images[place + 1],),
                )
            )
    return steps


def _image(value: object, name: str, where: str, length: int) -> str:
    """Return the id of an image, which comes last, after its address (and captions)."""
    if isinstance(value, list) and len(value) == length and isinstance(value[-1], str):
        return str(value[-1])
    raise ValueError(
        f"{where}: {name!r} must be {length} values, the last an image id, got {value!r:.80}; "
        "fetch the file again"
    )


def _by_session(steps: Sequence[Entry]) -> list[list[Entry]]:
    sessions: dict[str, list[Entry]] = {}
    for step in steps:
        sessions.setdefault(step.query_id.rpartition("/")[0], []).append(step)
    return [*sessions.values()]


def _blank(steps: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    for step in steps:
        if all(is_blank(clean(caption)) for caption in step.texts):
            yield step.where, "its captions say nothing; remove the session"


def _holds(steps: Sequence[Entry], pairs: set[tuple[str, str | None]]) -> bool:
    return any((step.reference, step.target) in pairs for step in steps)


def _train_pairs(fashioniq_root: Path) -> set[tuple[str, str | None]]:
    """Return the references and targets of FashionIQ's training triplets, of all categories."""
    entries = (
        read_pairs(annotation_files(fashioniq_root, category, "train")[1], category, "train")
        for category in CATEGORIES
    )
    return {(entry.reference, entry.target) for entry in chain.from_iterable(entries)}


def _inspect(root: Path, fashioniq_root: Path) -> Annotations:
    """Return all that the annotations and FashionIQ's folder hold, and what is wrong."""
    if not (root / "image_splits").is_dir():
        raise FileNotFoundError(
            f"no Multi-turn FashionIQ in {root}: the folder {root / 'image_splits'} is missing; "
            f"give the folder that holds it, or fetch the annotations from {_SOURCE}"
        )
    found, images = Annotations("Multi-turn FashionIQ", root), FashionIQImages(fashioniq_root)
    refused: dict[str, str] = {}
    sessions: dict[str, list[list[Entry]]] = {}
    for category, published in _PUBLISHED.items():
        read = partial(read_steps, category=category)
        files = _files(root, category)
        ids, steps = found.read_split(f"{category}.val", files, published, read_split, read)
        found.add("blank", f"{{}} rounds of {files[1].name} are refused", _blank(steps))
        for image_id in ids or []:
            try:
                found.images[image_id] = images.path(image_id)
            except ValueError as error:
                refused[image_id] = str(error)
        sessions[category] = _by_session(steps)
    found.add("ambiguous", "{} images have no single file of FashionIQ", refused.items())
    found.compare(_SOURCE)
    try:
        trained = _train_pairs(fashioniq_root)
    except FileNotFoundError:  # they are not needed to read all sessions
        return found
    for category, of in sessions.items():
        names = [steps[0].query_id.rpartition("/")[0] for steps in of if _holds(steps, trained)]
        sentence = (
            f"{{}} of {len(of):,} {category} sessions hold a step that is a triplet of FashionIQ's "
            "train split; without_training_triplets=True leaves them out"
        )
        found.add("trained", sentence, ((name, "") for name in names), fault=False)
    return found

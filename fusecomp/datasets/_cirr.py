"""CIRR (rc2): its files, the dataset, and a whole folder against what is published."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from fusecomp._core.checks import as_path, as_text, require_choice
from fusecomp._core.strict_json import read_json
from fusecomp.datasets._alike import require_text, warn_of_missing_words
from fusecomp.datasets._entries import Entry, field, raise_first, read_objects, require_listed
from fusecomp.datasets._folder import require_below
from fusecomp.datasets._triplets import Triplets
from fusecomp.datasets._verify import Annotations, make_report
from fusecomp.datasets._verify_report import VerifyReport

_SOURCE = "https://github.com/Cuberick-Orion/CIRR, branch cirr_dataset"
_GROUP = 6
# split -> images, queries
_PUBLISHED = {"train": (16_939, 28_225), "val": (2_297, 4_181), "test1": (2_315, 4_148)}


class CIRR(Triplets):
    """CIRR (rc2) in either published folder layout; opens no image.

    ``root`` holds ``cirr/captions/cap.rc2.SPLIT.json``, ``cirr/image_splits/split.rc2.SPLIT.json``
    and the images in train, dev and test1 (CLIP4Cir); or ``captions`` and ``image_splits``
    themselves, with the images next to them or in ``img_raw`` (the annotations' own branch).

    One task without a name ranks every image of the split but the query's reference, with R@1, 5,
    10 and 50, and also the other five images of the query's group. Query ids are the pair ids.

    Reference:
        Liu, Rodriguez-Opazo, Teney, Gould, "Image Retrieval on Real-life Images with Pre-trained
        Vision-and-Language Models", ICCV 2021, https://arxiv.org/abs/2108.04024.

    Args:
        root: the folder.
        split: ``"train"``, ``"val"`` or ``"test1"`` (whose targets only the server knows).
        name: the dataset's name in the protocol, for other datasets of this layout.

    Raises:
        TypeError: if root is no path, or name no string.
        FileNotFoundError: if an annotation file is missing.
        ValueError: on an unknown split or a broken annotation file; names the pair or image.

    Warns:
        UserWarning: if captions are words such as ``"nan"``, which programs print for missing ones.

    Example:
        >>> import tempfile
        >>> from fusecomp._core.strict_json import write_json
        >>> root, ids = Path(tempfile.mkdtemp()), [f"dev-0-{n}-img0" for n in range(6)]
        >>> files = {name: f"./dev/{name}.png" for name in ids}
        >>> write_json(root / "image_splits/split.rc2.val.json", files)
        >>> pair = {"pairid": 7, "reference": ids[0], "target_hard": ids[1], "caption": "two dogs"}
        >>> write_json(root / "captions/cap.rc2.val.json", [pair | {"img_set": {"members": ids}}])
        >>> data = CIRR(root, split="val")
        >>> data.triplets()[0].query_id, data.path(ids[1]).relative_to(root).as_posix()
        ('7', 'dev/dev-0-1-img0.png')
    """

    def __init__(self, root: str | Path, split: str, name: str = "CIRR") -> None:
        self.split = split = require_choice("split", split, _PUBLISHED)
        self.root = as_path("root", root)
        name = as_text("name", name)
        annotations, image_folder = _folders(self.root)
        split_path, captions = _annotation_files(annotations, split)
        files = _read_files(split_path)
        pairs = _read_pairs(captions, split)
        if not pairs:
            raise ValueError(f"{captions} holds no pairs; fetch it again")
        require_listed(captions, pairs, files, f"is not in {split_path}; fetch both files again")
        raise_first(captions, _pair_problems(pairs))
        super().__init__(
            [pair.triplet() for pair in pairs],
            {image_id: image_folder / file for image_id, file in files.items()},
            gallery=list(files),
            name=name,
        )
        warn_of_missing_words(
            (f"{captions}, {pair.where}: the caption", pair.texts[0]) for pair in pairs
        )

    @classmethod
    def verify(
        cls, root: str | Path, *, decode: bool = False, num_workers: int | None = None
    ) -> VerifyReport:
        """List all that is wrong with a folder; reading a split raises the first of it.

        Takes and raises what ``FashionIQ.verify`` does; the root may hold the annotations alone.
        """
        return make_report(as_path("root", root), _inspect, decode, num_workers)

    @property
    def protocol(self) -> Mapping[str, str]:
        """The options that make scores comparable or not."""
        options = {"split": self.split, "gallery": "split", "reference": "excluded"}
        return {"dataset": self.name, **options}

    def __repr__(self) -> str:
        return f"CIRR({str(self.root)!r}, {self.split!r}, {len(self)} triplets)"


def _folders(root: Path) -> tuple[Path, Path]:
    """Return the folders of the annotations and of the images, in either published layout."""
    nested = (root / "cirr" / "image_splits").is_dir()
    annotations = root / "cirr" if nested else root
    splits, raw = annotations / "image_splits", annotations / "img_raw"
    if not splits.is_dir():
        raise FileNotFoundError(
            f"no CIRR in {root}: the folder {splits} is missing, and cirr/image_splits too; "
            f"give the folder that holds one, or fetch the annotations from {_SOURCE}"
        )
    return annotations, raw if raw.is_dir() else root


def _annotation_files(annotations: Path, split: str) -> tuple[Path, Path]:
    """Return the split file and the caption file."""
    return (
        annotations / "image_splits" / f"split.rc2.{split}.json",
        annotations / "captions" / f"cap.rc2.{split}.json",
    )


def _read_files(path: Path) -> dict[str, str]:
    """Return the path of each image of a split below the folder of the images."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, got a {type(content).__name__}")
    for name, file in content.items():
        if not isinstance(file, str) or not file:
            raise ValueError(f"{path}: expected the file of image {name!r}, got {file!r:.80}")
        require_below(f"{path}", "image id", name)
        require_below(f"{path}, image {name!r}", "file", file)
    return content


def _read_pairs(path: Path, split: str) -> list[Entry]:
    """Return the entries of a caption file; targets may be absent in test1."""
    return [_pair(row, where, split != "test1") for where, row in read_objects(path)]


def _pair(row: dict[str, object], where: str, has_target: bool) -> Entry:
    known = has_target or row.get("target_hard") is not None
    members = field(row, "img_set", dict, where).get("members")
    if not isinstance(members, list) or not all(isinstance(m, str) for m in members):
        raise ValueError(
            f"{where}: img_set.members must be a list of names, got {members!r:.80}; "
            "fetch the file again"
        )
    caption = field(row, "caption", str, where)
    require_text(where, "caption", caption, "write the caption itself")
    pair_id = str(field(row, "pairid", int, where))
    return Entry(
        where=f"pair {pair_id}",
        query_id=pair_id,
        reference=field(row, "reference", str, where),
        texts=(caption,),
        targets=(field(row, "target_hard", str, where),) if known else (),
        group=tuple(members),
    )


def _pair_problems(pairs: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Yield well-formed pairs that make no query, each with a sentence that says why."""
    seen: set[str] = set()
    for pair in pairs:
        if pair.query_id in seen:
            yield pair.where, "the pairid is in the file already"
        seen.add(pair.query_id)
        members = pair.group or ()
        group = " ".join(members)
        if len(members) != _GROUP or len(set(members)) != _GROUP:
            yield pair.where, f"the group must be {_GROUP} distinct images, got {group}"
        if pair.reference not in members:
            yield pair.where, f"the reference {pair.reference!r} is not in its group: {group}"
        if pair.target == pair.reference:
            yield pair.where, f"the target is the reference, {pair.target!r}"
        elif pair.target is not None and pair.target not in members:
            yield pair.where, f"the target {pair.target!r} is not in its group: {group}"


def _inspect(root: Path) -> Annotations:
    """Return all that the annotations and the folders of images hold, and what is wrong."""
    annotations, image_folder = _folders(root)
    found = Annotations("CIRR", root)
    for split, published in _PUBLISHED.items():
        paths = _annotation_files(annotations, split)
        read = partial(_read_pairs, split=split)
        files, pairs = found.read_split(split, paths, published, _read_files, read)
        found.images |= {name: image_folder / path for name, path in (files or {}).items()}
        sentence = f"{paths[1].name} has {{}} faults in its pairs; CIRR refuses the file"
        found.add("pair", sentence, _pair_problems(pairs))
    found.compare(_SOURCE)
    return found

"""CIRCO: its files, the dataset, and a whole folder against what is published."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fusecomp._core.checks import as_path, as_text, flag, is_blank, require_choice
from fusecomp._core.strict_json import read_json
from fusecomp.datasets._alike import require_text, warn_of_missing_words
from fusecomp.datasets._entries import Entry, field, raise_first, read_objects, require_listed
from fusecomp.datasets._folder import require_below
from fusecomp.datasets._triplets import Triplets
from fusecomp.datasets._verify import Annotations, make_report
from fusecomp.datasets._verify_report import Count, VerifyReport

_SOURCE = "https://github.com/miccunifi/CIRCO"
_COCO = "https://cocodataset.org/#download (2017 unlabeled images, and their image info)"
_IMAGES = 123_403
# split -> queries
_PUBLISHED = {"val": 220, "test": 800}
_KS = (5, 10, 25, 50)


class CIRCO(Triplets):
    """CIRCO in its published folder layout; opens no image.

    ``root`` holds ``annotations/SPLIT.json`` and COCO's unlabeled images of 2017:
    ``COCO2017_unlabeled/unlabeled2017/000000243611.jpg`` and so on, with their list
    ``COCO2017_unlabeled/annotations/image_info_unlabeled2017.json``. Without the list, the images
    in the folder are the gallery.

    One task without a name ranks every image: mAP@5, 10, 25 and 50 over all right answers, and
    R@5, 10, 25 and 50 of the target alone, which is the first of them. An image id is COCO's number
    as a string, without leading zeros. The text is the relative caption.

    Reference:
        Baldrati, Agnolucci, Bertini, Del Bimbo, "Zero-Shot Composed Image Retrieval with Textual
        Inversion", ICCV 2023, https://arxiv.org/abs/2303.15247

    Args:
        root: the folder.
        split: ``"val"`` or ``"test"`` (whose targets only the server knows).
        exclude_reference: leave each query's reference out of its ranking; published scores keep
            it.
        name: the dataset's name in the protocol, for other datasets of this layout.

    Attributes:
        shared_concepts: what reference and target have in common, in words, by query id.
        semantic_aspects: the ids of the queries of each aspect, such as ``"negation"``, for
            ``Evaluation.select``; empty where the file has none.

    Raises:
        TypeError: if root is no path, or name no string.
        FileNotFoundError: if an annotation file is missing, or both list and folder of the images.
        ValueError: on an unknown split or a broken annotation file; names the query or image.

    Warns:
        UserWarning: if captions are words such as ``"nan"``, which programs print for missing ones.

    Example:
        >>> import tempfile
        >>> from fusecomp._core.strict_json import write_json
        >>> root = Path(tempfile.mkdtemp())
        >>> images = [{"id": n, "file_name": f"{n:012}.jpg"} for n in (7, 8, 9)]
        >>> info = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
        >>> write_json(root / info, {"images": images})
        >>> query = {"id": 0, "reference_img_id": 7, "target_img_id": 8, "gt_img_ids": [8, 9]}
        >>> words = {"relative_caption": "has two dogs", "shared_concept": "a dog"}
        >>> write_json(root / "annotations/val.json", [query | words])
        >>> data = CIRCO(root, split="val")
        >>> data.triplets()[0].relevant_ids, data.path("9").name
        (('8', '9'), '000000000009.jpg')
    """

    def __init__(
        self, root: str | Path, split: str, exclude_reference: bool = False, name: str = "CIRCO"
    ) -> None:
        self.split = split = require_choice("split", split, _PUBLISHED)
        self.root = as_path("root", root)
        exclude_reference = flag("exclude_reference", exclude_reference)
        name = as_text("name", name)
        files = _read_images(self.root)
        path = _annotation_file(self.root, split)
        queries, self.shared_concepts, self.semantic_aspects = _read_queries(path, split)
        if not queries:
            raise ValueError(f"{path} holds no queries; fetch it again from {_SOURCE}")
        raise_first(path, _query_problems(queries))
        why = f"is none of the {len(files):,} images of {_images_folder(self.root)}"
        require_listed(path, queries, files, why)
        super().__init__(
            [query.triplet() for query in queries],
            files,
            ks=_KS,
            gallery=list(files),
            exclude_reference=exclude_reference,
            name=name,
        )
        warn_of_missing_words(
            (f"{path}, {query.where}: the caption", query.texts[0]) for query in queries
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
        reference = "excluded" if self.exclude_reference else "kept"
        gallery = f"{len(self.image_ids):,} images"
        options = {"split": self.split, "gallery": gallery, "reference": reference}
        return {"dataset": self.name, **options}

    def __repr__(self) -> str:
        return f"CIRCO({str(self.root)!r}, {self.split!r}, {len(self)} triplets)"


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"{split}.json"


def _images_folder(root: Path) -> Path:
    return root / "COCO2017_unlabeled" / "unlabeled2017"


def _image_list(root: Path) -> Path:
    return root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"


def _read_images(root: Path) -> dict[str, Path]:
    """Return the file of each image of the gallery: those of the list, or of the folder."""
    path, folder = _image_list(root), _images_folder(root)
    if path.exists():
        return {image_id: folder / file for image_id, file in _read_list(path).items()}
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no images of CIRCO in {root}: both {path} and {folder} are missing; fetch them from "
            f"{_COCO}"
        )
    names = sorted(file.name for file in folder.iterdir() if file.suffix == ".jpg")
    for name in names:
        if not (name.isascii() and name.removesuffix(".jpg").isdecimal()):
            raise ValueError(f"{folder}: {name!r} is no number, as COCO's images are; move it away")
    if not names:
        raise FileNotFoundError(f"{folder} has no .jpg files; fetch the images from {_COCO}")
    return {str(int(name.removesuffix(".jpg"))): folder / name for name in names}


def _read_list(path: Path) -> dict[str, str]:
    """Return the name of each image's file."""
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise ValueError(f"{path} must hold an object with a list of images; fetch it from {_COCO}")
    files: dict[str, str] = {}
    for number, row in enumerate(images):
        where = f"{path}, image {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object, got {row!r:.80}; fetch the file again")
        image_id, file = str(field(row, "id", int, where)), field(row, "file_name", str, where)
        require_below(where, "file_name", file)
        if image_id in files:
            raise ValueError(f"{where}: the id {image_id} is in the file already; fetch it again")
        files[image_id] = file
    return files


_Aspects = dict[str, tuple[str, ...]]


def _read_queries(path: Path, split: str) -> tuple[list[Entry], dict[str, str], _Aspects]:
    """Return the queries of a file, their shared concepts, and the queries of each aspect."""
    queries, concepts, aspects = [], {}, dict[str, list[str]]()
    for where, row in read_objects(path):
        query = _query(row, where, known=split == "val" or row.get("gt_img_ids") is not None)
        queries.append(query)
        concepts[query.query_id] = field(row, "shared_concept", str, where)
        named = row.get("semantic_aspects", [])
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise ValueError(
                f"{where}: 'semantic_aspects' must be a list of names, got {named!r:.80}"
            )
        for name in dict.fromkeys(named):
            aspects.setdefault(name, []).append(query.query_id)
    return queries, concepts, {name: tuple(ids) for name, ids in aspects.items()}


def _query(row: dict[str, object], where: str, known: bool) -> Entry:
    caption = field(row, "relative_caption", str, where)
    require_text(where, "relative_caption", caption, "write the caption itself")
    targets: tuple[str, ...] = ()
    if known:
        target = str(field(row, "target_img_id", int, where))
        answers = field(row, "gt_img_ids", list, where)
        if not answers or any(isinstance(i, bool) or not isinstance(i, int) for i in answers):
            raise ValueError(
                f"{where}: 'gt_img_ids' must be a list of image ids, at least one, got "
                f"{answers!r:.80}; fetch the file again"
            )
        targets = tuple(map(str, answers))
        if targets[0] != target:
            raise ValueError(
                f"{where}: the target {target} is not the first of 'gt_img_ids', {targets[0]}; "
                "fetch the file again"
            )
    query_id = str(field(row, "id", int, where))
    return Entry(
        where=f"query {query_id}",
        query_id=query_id,
        reference=str(field(row, "reference_img_id", int, where)),
        texts=(caption,),
        targets=targets,
    )


def _query_problems(queries: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Yield well-formed entries that make no query, each with a sentence that says why."""
    seen: set[str] = set()
    for query in queries:
        if query.query_id in seen:
            yield query.where, "the id is in the file already"
        seen.add(query.query_id)
        if any(map(is_blank, query.texts)):
            yield query.where, "the relative caption is blank"
        if len({*query.targets}) < len(query.targets):
            yield query.where, f"gt_img_ids names an image twice: {' '.join(query.targets)}"
        if query.reference in query.targets:
            yield query.where, f"the reference {query.reference} is among the right answers"


def _inspect(root: Path) -> Annotations:
    """Return all that the annotations and the folder of images hold, and what is wrong."""
    found = Annotations("CIRCO", root)
    files: dict[str, Path] = {}
    try:
        files = _read_images(root)
    except FileNotFoundError:
        found.absent.append(_image_list(root).relative_to(root).as_posix())
    else:
        found.counts.append(Count("images", len(files), _IMAGES))
    named: dict[str, Path] = {}
    for split, published in _PUBLISHED.items():
        path = _annotation_file(root, split)
        if not path.exists():
            found.absent.append(path.relative_to(root).as_posix())
            continue
        queries, *_ = _read_queries(path, split)
        found.counts.append(Count(f"{split} queries", len(queries), published))
        sentence = f"{path.name} has {{}} faults in its queries; CIRCO refuses the file"
        found.add("query", sentence, _query_problems(queries))
        ids = dict.fromkeys(i for query in queries for i in query.image_ids)
        named |= {i: _images_folder(root) / f"{int(i):012}.jpg" for i in ids}
        if files:
            sentence = f"{path.name} names {{}} images that are not in the gallery; fetch both"
            found.add("unlisted", sentence, ((i, "") for i in ids if i not in files))
    found.images = files or named
    found.compare(_SOURCE)
    return found

"""The files of CIRR (rc2): where they are, and what is wrong with them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from fusecomp._core.strict_json import read_json
from fusecomp.datasets._alike import require_text
from fusecomp.datasets._entries import Entry, field, read_objects
from fusecomp.datasets._names import require_below
from fusecomp.datasets._verify import Annotations, count_findings, unlisted_findings
from fusecomp.datasets._verify_report import Count, Finding, listed

_SOURCE = "https://github.com/Cuberick-Orion/CIRR, branch cirr_dataset"
_GROUP = 6
# split -> images, queries
_PUBLISHED = {"train": (16_939, 28_225), "val": (2_297, 4_181), "test1": (2_315, 4_148)}


def find_folders(root: Path) -> tuple[Path, Path]:
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


def annotation_files(annotations: Path, split: str) -> tuple[Path, Path]:
    """Return the split file and the caption file."""
    return (
        annotations / "image_splits" / f"split.rc2.{split}.json",
        annotations / "captions" / f"cap.rc2.{split}.json",
    )


def read_files(path: Path) -> dict[str, str]:
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


def read_pairs(path: Path, split: str) -> list[Entry]:
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
        target=field(row, "target_hard", str, where) if known else None,
        group=tuple(members),
    )


def pair_problems(pairs: Iterable[Entry]) -> Iterator[tuple[Entry, str]]:
    """Yield well-formed pairs that make no query, each with a sentence that says why."""
    seen: set[str] = set()
    for pair in pairs:
        if pair.query_id in seen:
            yield pair, "the pairid is in the file already"
        seen.add(pair.query_id)
        members = pair.group or ()
        group = " ".join(members)
        if len(members) != _GROUP or len(set(members)) != _GROUP:
            yield pair, f"the group must be {_GROUP} distinct images, got {group}"
        if pair.reference not in members:
            yield pair, f"the reference {pair.reference!r} is not in its group: {group}"
        if pair.target == pair.reference:
            yield pair, f"the target is the reference, {pair.target!r}"
        elif pair.target is not None and pair.target not in members:
            yield pair, f"the target {pair.target!r} is not in its group: {group}"


def inspect(root: Path) -> Annotations:
    """Return all that the annotations and the folders of images hold, and what is wrong."""
    annotations, image_folder = find_folders(root)
    counts: list[Count] = []
    findings: list[Finding] = []
    images: dict[str, Path] = {}
    for split, (image_count, query_count) in _PUBLISHED.items():
        paths = split_path, captions = annotation_files(annotations, split)
        use = "training" if split == "train" else f"evaluation on {split}"
        for path in paths:
            if not path.exists():
                message = f"{path.name} is missing, which {use} needs; fetch it from {_SOURCE}"
                findings.append(Finding("annotation", message, (path.name,)))
        files: dict[str, str] = {}
        if split_path.exists():
            files = read_files(split_path)
            images |= {name: image_folder / path for name, path in files.items()}
            counts.append(Count(f"{split} images", len(files), image_count))
        if captions.exists():
            pairs = read_pairs(captions, split)
            counts.append(Count(f"{split} queries", len(pairs), query_count))
            sentence = f"{captions.name} has {{}} faults in its pairs; CIRR refuses the file"
            problems = ((pair.where, problem) for pair, problem in pair_problems(pairs))
            findings += listed("pair", sentence, problems)
            findings += unlisted_findings(captions, pairs, files) if files else []
    findings += count_findings(counts, _SOURCE)
    return Annotations("CIRR", counts, findings, images, folder=root)

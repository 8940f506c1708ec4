from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fusecomp.data._verify_annotations import (
    Annotations,
    count_findings,
    require_layout,
    unlisted,
)
from fusecomp.data._verify_report import Count, Finding
from fusecomp.files import read_json

__all__ = ["cirr"]

_SOURCE = "https://github.com/Cuberick-Orion/CIRR, branch cirr_dataset"
# split -> images, queries
_PUBLISHED = {"train": (16_939, 28_225), "val": (2_297, 4_181), "test1": (2_315, 4_148)}
_GROUP = 6


def cirr(root: Path) -> Annotations:
    """What the annotations (rc2) and the folders of pictures of CIRR hold.

    ``root`` is the folder of train, dev, test1 and cirr, or that of captions and image_splits.
    """
    folder = root / "cirr" if (root / "cirr" / "image_splits").is_dir() else root
    require_layout(root, folder / "image_splits", "CIRR", _SOURCE)
    counts: list[Count] = []
    findings: list[Finding] = []
    pictures: dict[str, Path] = {}
    for split, (images, queries) in _PUBLISHED.items():
        split_path = folder / "image_splits" / f"split.rc2.{split}.json"
        caption_path = folder / "captions" / f"cap.rc2.{split}.json"
        missing = [path for path in (split_path, caption_path) if not path.exists()]
        findings += [_missing(path, split) for path in missing]
        files = {} if split_path in missing else _read_split(split_path)
        pictures |= {name: root / path for name, path in files.items()}
        if split_path not in missing:
            counts.append(Count(f"{split} images", len(files), images))
        if caption_path not in missing:
            entries = _read_captions(caption_path, split)
            counts.append(Count(f"{split} queries", len(entries), queries))
            findings += _groups(caption_path, entries)
            if files:
                findings += unlisted(caption_path, _used(entries), files)
    return Annotations("CIRR", counts, findings + count_findings(counts, _SOURCE), pictures)


def _missing(path: Path, split: str) -> Finding:
    needs = "training" if split == "train" else f"evaluation on {split}"
    message = f"{path.name} is missing, which {needs} needs; fetch it from {_SOURCE}"
    return Finding("annotation", message, (path.name,))


def _read_split(path: Path) -> dict[str, str]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, got a {type(content).__name__}")
    for name, file in content.items():
        if not isinstance(file, str) or not file:
            raise ValueError(f"{path}: expected the file of image {name!r}, got {file!r:.80}")
    return content


def _read_captions(path: Path, split: str) -> list[dict[str, Any]]:
    fields: dict[str, type] = {"pairid": int, "reference": str, "caption": str, "img_set": dict}
    if split != "test1":
        fields["target_hard"] = str
    entries = _read_entries(path, fields)
    for number, entry in enumerate(entries):
        members = entry["img_set"].get("members")
        if not isinstance(members, list) or not all(isinstance(m, str) for m in members):
            raise ValueError(
                f"{path}, entry {number}: img_set.members must be a list of names, "
                f"got {members!r:.80}; fetch the file again"
            )
    return entries


def _read_entries(path: Path, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """The entries of a caption file, checked to have these fields of these types."""
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(f"{path} must hold a list, got a {type(content).__name__}")
    for number, entry in enumerate(content):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: expected an object, got {entry!r:.80}")
        for field, kind in fields.items():
            if not isinstance(entry.get(field), kind):
                raise ValueError(
                    f"{where}: {field!r} must be a {kind.__name__}, got {entry.get(field)!r:.80}; "
                    "fetch the file again"
                )
    return content


def _used(entries: Iterable[dict[str, Any]]) -> Iterable[str]:
    for entry in entries:
        yield entry["reference"]
        if "target_hard" in entry:
            yield entry["target_hard"]
        yield from entry["img_set"]["members"]


def _groups(path: Path, entries: Iterable[dict[str, Any]]) -> list[Finding]:
    """A finding that names the pairs whose group is not six images, the pair's own among them."""
    wrong = []
    for entry in entries:
        members = entry["img_set"]["members"]
        own = {entry["reference"], entry.get("target_hard", entry["reference"])}
        if len(set(members)) != _GROUP or len(members) != _GROUP or not own <= set(members):
            wrong.append(f"pair {entry['pairid']}")
    if not wrong:
        return []
    message = (
        f"{path.name} has {len(wrong):,} pairs whose group is not {_GROUP} images with the "
        "reference and the target among them; recall in the subset needs that"
    )
    return [Finding("group", message, tuple(wrong))]

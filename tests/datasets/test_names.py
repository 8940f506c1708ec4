"""Names that lead out of the folder of the images are refused by every reader, where they stand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecomp.datasets import CIRR, FashionIQ, TripletTable
from fusecomp.datasets._folder import require_below

OUTSIDE = [
    "/etc/passwd",
    "//server/share/x",
    "..",
    "../x",
    "a/../../x",
    "a/..",
    r"..\x",
    r"a\..\..\x",
    r"\x",
    r"C:\x",
    "C:/x",
    r"\\server\share\x",
    "x\0.png",
    "\ud800",
    ".",
    "./.",
]
BELOW = ["x", "./dev/x.png", "a/b.c/d", "..x", "x..", "a/...", "größer", "a b", "x:y", "~", "-rf"]

READERS: dict[str, list[Callable[[Path], Any]]] = {
    "FashionIQ": [lambda root: FashionIQ(root, "val"), lambda root: FashionIQ.verify(root)],
    "CIRR": [lambda root: CIRR(root, "val"), lambda root: CIRR.verify(root)],
    "table": [
        lambda images: TripletTable(images.parent / "mine.jsonl", images),
        lambda images: TripletTable.verify(images.parent / "mine.jsonl", images=images),
    ],
}


def read(root: Path, name: str) -> Any:
    return json.loads((root / name).read_text())


def write(root: Path, name: str, content: Any) -> None:
    (root / name).write_text(json.dumps(content))


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="file: image must be a path below the folder"):
        require_below("file", "image", name)


# Each reader asks that check, so a few names of several kinds suffice there.
few_names = pytest.mark.parametrize("name", ["../x", "C:/x", "x\0.png"])


@few_names
@pytest.mark.parametrize("reader", READERS["FashionIQ"])
def test_an_image_of_fashioniq_that_leads_out(
    tiny_fashioniq: Path, reader: Callable[[Path], Any], name: str
) -> None:
    file = "image_splits/split.dress.val.json"
    write(tiny_fashioniq, file, [*read(tiny_fashioniq, file), name])
    with pytest.raises(ValueError, match=rf"{file}, entry 12: image id must be a path below"):
        reader(tiny_fashioniq)


@few_names
@pytest.mark.parametrize("is_id", [True, False])
@pytest.mark.parametrize("reader", READERS["CIRR"])
def test_an_image_of_cirr_that_leads_out(
    tiny_cirr: Path, reader: Callable[[Path], Any], is_id: bool, name: str
) -> None:
    file = "cirr/image_splits/split.rc2.val.json"
    entry = {name: "./dev/x.png"} if is_id else {"dev-x": name}
    write(tiny_cirr, file, read(tiny_cirr, file) | entry)
    field = "image id" if is_id else "image 'dev-x': file"
    with pytest.raises(ValueError, match=rf"{file}.*{field} must be a path below the folder"):
        reader(tiny_cirr)


@few_names
@pytest.mark.parametrize("field", ["reference", "target", "group"])
@pytest.mark.parametrize("reader", READERS["table"])
def test_an_image_of_a_table_that_leads_out(
    folder: Path, reader: Callable[[Path], Any], field: str, name: str
) -> None:
    table = folder.parent / "mine.jsonl"
    fields: dict[str, Any] = {"reference": "a", "text": "is blue", "target": "b"}
    fields |= {"group": ["a", "b"]}
    wrong = fields | {field: ["a", "b", name] if field == "group" else name}
    table.write_text(f"{json.dumps(fields)}\n{json.dumps(wrong)}\n")
    with pytest.raises(ValueError, match=rf"mine.jsonl, line 2: {field} must be a path below"):
        reader(folder)


@pytest.mark.parametrize("name", BELOW)
def test_a_name_below_the_folder_is_fine(name: str) -> None:
    require_below("file", "image", name)


@given(st.text(max_size=12), st.sampled_from(["/", "\\"]), st.text(max_size=12))
def test_no_name_that_passes_leads_out(before: str, slash: str, after: str) -> None:
    for name in (before + slash + after, f"{before}..{slash}{after}", f"{before}{slash}..{after}"):
        try:
            require_below("file", "image", name)
        except ValueError:
            continue
        place = Path("/images/folder", name)
        assert Path("/images/folder") in place.parents
        assert ".." not in place.parts
        assert "\0" not in name


def test_a_link_of_the_user_may_lead_out(tiny_fashioniq: Path, tmp_path: Path) -> None:
    (tiny_fashioniq / "images").rename(tmp_path / "elsewhere")
    (tiny_fashioniq / "images").symlink_to(tmp_path / "elsewhere")
    data = FashionIQ(tiny_fashioniq, "val")
    assert data.path("Dval00").read_bytes() == b"Dval00"

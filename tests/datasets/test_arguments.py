"""Arguments of the wrong kind are named with their value before a file is read."""

import math
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raising import shown_id
from verifying import check

from fusecomp.datasets import CIRR, FashionIQ, TripletTable, drop_images
from fusecomp.evaluation import Recall, write_cirr_submission
from fusecomp.training import StageConfig

NO_FLAGS = ["no", "False", "True", "", 0, 1, None, [], 1.0]
NO_PATHS = [None, b"images", 5, ["images"], True, math.nan]
NO_KS: list[Any] = [
    *(5, None, "15", b"15", True),
    *([True], [1.0], ["5"], [0], [-1], [5, 5], [None], [math.nan], [], [[1, 5]]),
    *({1, 5}, frozenset((1, 5)), {1: 1, 5: 5}, {1: 1, 5: 5}.items(), np.array([[1, 5]])),
]


def table(folder: Path, **options: Any) -> TripletTable:
    return TripletTable(folder.parent / "mine.csv", **{"images": folder} | options)


@pytest.mark.parametrize("value", NO_FLAGS)
def test_a_flag_is_true_or_false(folder: Path, tiny_fashioniq: Path, value: Any) -> None:
    uses: list[Callable[..., Any]] = [
        lambda **flag: table(folder, **flag),
        lambda **flag: FashionIQ(tiny_fashioniq, "val", **flag),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="exclude_reference must be True or False, got"):
            use(exclude_reference=value)
    with pytest.raises(ValueError, match="decode must be True or False, got"):
        FashionIQ.verify(tiny_fashioniq, decode=value)


def test_a_flag_of_numpy_is_one(folder: Path) -> None:
    assert table(folder, exclude_reference=np.False_).exclude_reference is False
    assert table(folder, exclude_reference=np.True_).protocol["reference"] == "excluded"


@pytest.mark.parametrize("ks", NO_KS, ids=shown_id)
def test_ks_are_distinct_whole_numbers_in_an_order(folder: Path, ks: Any) -> None:
    with pytest.raises(ValueError, match=r"ks must be (a list of )?whole numbers"):
        table(folder, ks=ks)


def test_ks_that_can_be_read_once_only_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="ks must be a list of whole numbers, got the generator"):
        table(folder, ks=(k for k in (1, 5)))


@pytest.mark.parametrize(
    "ks", [(5, 1), [5, 1], np.array([5, 1]), range(5, 0, -4), (np.int64(5), 1)]
)
def test_ks_stay_in_their_order_as_numbers_of_python(folder: Path, ks: Any) -> None:
    data = table(folder, ks=ks)
    assert data.ks == (5, 1)
    assert data.tasks()[0].metrics == (Recall(5), Recall(1))
    assert [type(k) for k in data.ks] == [int, int]


@pytest.mark.parametrize(
    "categories",
    [None, 5, {"dress"}, frozenset(("dress",)), {"dress": 1}, (c for c in ("dress", "shirt"))],
    ids=shown_id,
)
def test_categories_have_an_order(tiny_fashioniq: Path, categories: Any) -> None:
    with pytest.raises(ValueError, match="categories must be a list of names, got the"):
        FashionIQ(tiny_fashioniq, "val", categories)


@pytest.mark.parametrize("value", NO_PATHS)
def test_a_path_is_a_string_or_a_path(folder: Path, value: Any) -> None:
    uses: dict[str, list[Callable[[], Any]]] = {
        "root": [
            lambda: FashionIQ(value, "val"),
            lambda: CIRR(value, "val"),
            lambda: CIRR.verify(value),
        ],
        "path": [lambda: TripletTable(value, folder)],
        "images": [
            lambda: table(folder, images=value),
            lambda: TripletTable.verify(folder.parent / "mine.csv", images=value),
        ],
    }
    for name, calls in uses.items():
        for call in calls:
            with pytest.raises((TypeError, ValueError), match=f"{name} must be .* got"):
                call()


def test_a_path_holds_no_nul(folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"images must be a path, which holds no NUL, got 'a\\x00'"
    ):
        table(folder, images="a\0")


@pytest.mark.parametrize("value", [None, 5, b"Mini", ["Mini"]])
def test_the_name_of_a_dataset_is_a_string(
    tiny_fashioniq: Path, tiny_cirr: Path, value: Any
) -> None:
    for read, root in ((FashionIQ, tiny_fashioniq), (CIRR, tiny_cirr)):
        with pytest.raises(TypeError, match="name must be a string, got"):
            read(root, "val", name=value)


@pytest.mark.parametrize("value", [-1, 0.5, "0", None, True])
@pytest.mark.parametrize("name", ["epoch", "seed"])
def test_an_epoch_and_a_seed_are_whole_numbers(tiny_fashioniq: Path, name: str, value: Any) -> None:
    data = FashionIQ(tiny_fashioniq, "train")
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 0, got"):
        data.triplets(**{name: value})
    assert len(data.triplets(seed=2**70)) == 24


@pytest.mark.parametrize("value", ["2", 0, -1, 1.5, True, False, [2]])
def test_workers_are_a_number_of_them(folder: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="num_workers must be a whole number of at least 1, got"):
        TripletTable.verify(folder.parent / "mine.csv", images=folder, num_workers=value)


@pytest.mark.parametrize("image_ids", [None, 5, True, [None], [5], [["a"]], b"a", [Path("a")]])
def test_what_is_left_out_are_strings(folder: Path, image_ids: Any) -> None:
    with pytest.raises(TypeError, match=r"image_ids must be a (list of strings|string), got"):
        drop_images(table(folder), image_ids)


@pytest.mark.parametrize("dataset", [None, "mine.csv", ["a"], Path("a")])
def test_what_it_is_left_out_of_is_a_dataset(dataset: Any) -> None:
    with pytest.raises(TypeError, match=r"dataset must be a Dataset, got .*; the order is dataset"):
        drop_images(dataset, ["a"])


def test_what_is_left_out_may_come_in_any_way(folder: Path) -> None:
    (folder.parent / "mine.csv").write_text("reference,text,target\na,is,b\nb,is,c\n")
    data = table(folder)
    for image_ids in (["a"], {"a"}, ("a" for _ in range(2)), {"a": "why"}.keys()):
        assert len(drop_images(data, image_ids)) == 1  # type: ignore[arg-type]


def test_a_submission_is_made_of_a_ranking(tiny_cirr: Path, tmp_path: Path) -> None:
    wrong: list[Any] = [None, "ranking", 5, tmp_path]
    for ranking in wrong:
        with pytest.raises(TypeError, match="ranking must be a Ranking, got"):
            write_cirr_submission(ranking, tmp_path)
    dataset: Any = CIRR(tiny_cirr, "test1")
    with pytest.raises(ValueError, match=r"ranking.tasks must be a list of rankings, as fusecomp"):
        write_cirr_submission(dataset, tmp_path)


# As somebody may keep options; unlike StrEnum's, its members print as Choice.val.
Choice = Enum(
    "Choice",
    {
        "val": "val",
        "split": "split",
        "both": "both",
        "dress": "dress",
        "fp32": "fp32",
    },
    type=str,
)
KINDS: list[Callable[[str], Any]] = [Choice, np.str_, lambda name: np.array([name])[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_an_option_of_another_kind_of_string_is_the_plain_one(
    folder: Path, tiny_fashioniq: Path, tiny_cirr: Path, kind: Callable[[str], Any]
) -> None:
    (folder.parent / "mine.csv").write_text("reference,text,target,split\na,x,b,val\n")

    def made(kind: Callable[[str], Any]) -> list[Any]:
        fashion = {"categories": [kind("dress")], "captions": kind("both"), "gallery": kind("val")}
        return [
            table(folder, split=kind("val"), gallery=kind("split")),
            FashionIQ(tiny_fashioniq, kind("val"), **fashion),
            CIRR(tiny_cirr, kind("val"), kind("both")),
            StageConfig(epochs=1, batch_size=2, lr=0.1, precision=kind("fp32")),
        ]

    for one, other in zip(made(kind), made(str), strict=True):
        assert repr(one) == repr(other)
        described = [f"{value}" for value in getattr(one, "protocol", {}).values()]
        assert described == [*getattr(other, "protocol", {}).values()]


@pytest.mark.parametrize("value", [np.array(["val"]), ["val"], 5, b"val", True, ("val",)])
def test_the_split_of_a_table_is_a_string(folder: Path, value: Any) -> None:
    for use in (lambda: table(folder, split=value), lambda: check(folder, split=value)):
        with pytest.raises(TypeError, match="split must be a string, got"):
            use()

"""Published, obtained, interval: a claim only where the protocols are equal."""

import argparse
from pathlib import Path

import agreement
import pytest
import torch

import fusecomp as fc
from fusecomp.evaluation import bootstrap

DIM = 64


def evaluated(root: Path, hits: int, exclude_reference: bool = False) -> fc.Evaluation:
    """Sum on features that put the targets of the first queries of each task first, others last."""
    data = fc.datasets.FashionIQ(root, "val", exclude_reference=exclude_reference)
    images = dict(zip(data.image_ids, torch.eye(DIM), strict=False))
    texts = {}
    for task in data.tasks():
        for number, query in enumerate(task.queries):
            away = 10 if number < hits else -10
            assert query.target_id is not None
            texts[query.texts[0]] = away * images[query.target_id]
    encoder = fc.CachedEncoder.from_arrays(
        list(images), torch.stack([*images.values()]), list(texts), torch.stack([*texts.values()])
    )
    return fc.evaluate(fc.ComposedEncoder(encoder, fc.Sum()), data)


def arguments(**changes: object) -> argparse.Namespace:
    given = {"preset": "2022", "clip_checkpoint": None, "backbone": "RN50x4-quickgelu"}
    return argparse.Namespace(**(given | changes))


def test_each_cell_has_both_numbers_an_interval_and_a_verdict(tiny_fashioniq: Path) -> None:
    own = evaluated(tiny_fashioniq, hits=3)
    assert own["dress/recall@10"] == 37.5
    systems = agreement.published_systems(arguments())
    table = agreement.agreement_table({"image only": own, "tuned, Combiner": own}, systems)
    cells = {cell["metric"]: cell for cell in table.to_dict()["rows"]}
    assert {cell["row"] for cell in cells.values()} == {"tuned, Combiner"}
    assert len(cells) == 7
    # CVPR Workshops 2022 prints 33.81 and 59.40 for dress.
    low, high = bootstrap(own)["dress/recall@10"]
    assert cells["dress/recall@10"] == {
        "row": "tuned, Combiner",
        "metric": "dress/recall@10",
        "published": 33.81,
        "obtained": 37.5,
        "interval": [low, high],
        "agrees": True,
        "system": "text encoder tuned + Combiner",
    }
    assert low < 33.81 < high
    assert cells["dress/recall@50"]["published"] == 59.40
    assert cells["dress/recall@50"]["agrees"] is False
    lines = [line.split("|") for line in str(table).splitlines()]
    verdicts = {line[2].strip(): line[6].strip() for line in lines if len(line) > 6}
    assert verdicts["dress/recall@10"] == "yes"
    assert verdicts["dress/recall@50"] == "no, +40.60"


def test_another_protocol_is_not_compared(tiny_fashioniq: Path) -> None:
    own = evaluated(tiny_fashioniq, hits=3, exclude_reference=True)
    table = agreement.agreement_table({"plain, Sum": own}, {"plain, Sum": "Combiner on plain CLIP"})
    assert {cell["agrees"] for cell in table.to_dict()["rows"]} == {None}
    assert str(table).count("not compared: reference kept / excluded") == 7


@pytest.mark.parametrize(
    ("changes", "combiner"),
    [
        ({}, "Combiner on plain CLIP"),
        ({"clip_checkpoint": Path("file"), "backbone": None}, "text encoder tuned + Combiner"),
        (
            {"clip_checkpoint": Path("file"), "backbone": None, "preset": "2023"},
            "both encoders tuned + Combiner",
        ),
        ({"backbone": "ViT-B-32-quickgelu"}, None),
        ({"backbone": None}, None),
    ],
)
def test_a_row_is_compared_with_the_system_that_it_repeats(
    changes: dict[str, object], combiner: str | None
) -> None:
    systems = agreement.published_systems(arguments(**changes))
    assert systems.get("Combiner") == systems.get("plain, Combiner") == combiner

"""CIRPLANT on the tokens of tiny CLIPs, live and cached: trained, evaluated, queried."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tinyclip
import torch
from drawn import minifashion

import fusecomp as fc
from fusecomp.fusions import CIRPLANT

SIZES: dict[str, Any] = {"train_images": 24, "val_images": 12, "train_triplets": 16}
# Adam would make a step of the rounding in the gradient of the keys' bias, which is 0.
CONFIG = fc.StageConfig(epochs=3, batch_size=16, lr=0.1, optimizer="sgd", num_workers=0)
Shared = Callable[[str], Path]


@pytest.fixture
def data(tmp_path: Path) -> list[fc.datasets.FashionIQ]:
    root = minifashion.render(tmp_path / "mini", **SIZES, val_queries=6)
    return [
        fc.datasets.FashionIQ(root, split, categories=["dress"], name="MiniFashion")
        for split in ("train", "val")
    ]


def tiny_encoder() -> fc.DualEncoder:
    torch.manual_seed(0)
    image, text = tinyclip.TinyImageEncoder(16), tinyclip.TinyTextEncoder(16, width=8)
    return fc.DualEncoder(image, text, tinyclip.load_image)


def trained(encoder: Any, data: list[Any], dim: int, text_dim: int, **settings: Any) -> fc.Run:
    torch.manual_seed(1)
    fusion = CIRPLANT(dim, layers=1, heads=2, text_dim=text_dim, dropout=0.0)
    model, config = fc.ComposedEncoder(encoder, fusion), replace(CONFIG, **settings)
    return fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config).fit(*data)


def test_live_and_cached_tokens_train_alike(data: list[Any], tmp_path: Path) -> None:
    live = trained(tiny_encoder(), data, 16, 16, cache=False)
    cached = fc.CachedEncoder.build(
        tiny_encoder(), *data, path=tmp_path / "features", tokens=["text"]
    )
    runs = [trained(tiny_encoder(), data, 16, 16), trained(cached, data, 16, 16)]
    for run in runs:
        for name, weight in run.model.get_submodule("fusion").state_dict().items():
            expected = live.model.get_submodule("fusion").state_dict()[name]
            torch.testing.assert_close(weight, expected, rtol=1e-3, atol=1e-5)
        assert dict(run.metrics) == pytest.approx(dict(live.metrics), abs=1e-3)
    assert live.history[-1]["loss"] < live.history[0]["loss"]


def test_a_clip_tunes_its_text_side_under_it(shared: Shared, open_clip: Any, data: Any) -> None:
    encoder = fc.encoders.OpenClipEncoder.from_clip4cir(shared("parity/clip_vit_checkpoint.pt"))
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    settings = {"trainable": ("text", "fusion"), "epochs": 1, "lr": 1e-4, "micro_batch_size": 5}
    run = trained(encoder, data, 32, 64, **settings)
    moved = {n for n, weight in encoder.state_dict().items() if not torch.equal(weight, before[n])}
    assert "model.ln_final.weight" in moved
    assert not any("visual" in name for name in moved)
    val = data[1]
    images = [val.path(image_id) for image_id in val.image_ids[:4]]
    hits = (
        run.model.encode_query(images, ["is red and longer"] * 4)
        @ run.model.encode_gallery(images).mT
    )
    assert hits.shape == (4, 4)


def test_real_annotations_are_evaluated(
    shared: Shared, open_clip: Any, draw_images: Any, tmp_path: Path
) -> None:
    source, root = shared("datasets/fashioniq"), tmp_path / "fashionIQ_dataset"
    rows = json.loads((source / "captions/cap.dress.val.json").read_text())[:12]
    ids = sorted({row[side] for row in rows for side in ("candidate", "target")})
    for name, content in (("captions/cap.dress.val", rows), ("image_splits/split.dress.val", ids)):
        path = root / f"{name}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    draw_images(root / "images" / f"{image_id}.png" for image_id in ids)
    val = fc.datasets.FashionIQ(root, "val", categories=["dress"])
    clip = fc.encoders.OpenClipEncoder.from_clip4cir(shared("parity/clip_vit_checkpoint.pt"))
    torch.manual_seed(0)
    model = fc.ComposedEncoder(clip, CIRPLANT(32, 1, 2, text_dim=64))
    (task,) = val.tasks()
    found = fc.rank(model, val)["dress"]
    query = task.queries[0]
    with torch.no_grad():
        gallery = model.encode_gallery([val.path(image_id) for image_id in task.gallery])
        alone = model.encode_query([val.path(query.reference_id)], list(query.texts))
    scores = (alone @ gallery.T)[0]
    there = found.indices[0] >= 0
    expected = scores[found.indices[0][there]]
    torch.testing.assert_close(found.scores[0][there].float(), expected, rtol=0, atol=1e-5)
    assert len(expected) > 10

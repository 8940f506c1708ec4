"""What does not learn is encoded once for all stages, and never taken where it has changed."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import CONFIG, DIM, IMAGES, WORDS, Toy, WordText, encoder, load, weights

import fusecomp as fc
from fusecomp.training import Ablation, ablation

TUNE = replace(CONFIG, trainable="text")
# Before stage 1 begins, stage 2 is tried on one triplet.
TRIED = Counter(image=2, text=1)


class Counting(nn.Module):
    """A tower that counts the rows that it encodes without a graph."""

    def __init__(self, tower: nn.Module, counts: Counter[str], side: str) -> None:
        super().__init__()
        self.tower = tower
        self._counts, self._side = counts, side

    def forward(self, inputs: Any) -> Tensor:
        if not torch.is_grad_enabled():
            self._counts[self._side] += len(inputs)
        features: Tensor = self.tower(inputs)
        return features


def counted(counts: Counter[str]) -> fc.DualEncoder:
    torch.manual_seed(0)
    image, text = Counting(nn.Linear(4, DIM), counts, "image"), Counting(WordText(), counts, "text")
    return fc.DualEncoder(image, text, load)


def run(root: Path, live: fc.DualEncoder, workdir: Path | None = None, **stages: Any) -> Ablation:
    torch.manual_seed(1)
    settings = {"stage1": TUNE, "stage2": CONFIG} | stages
    data = Toy(root)
    fusion = fc.Combiner(DIM)
    return ablation(live, fusion, data, data, loss=fc.InfoNCE(), workdir=workdir, **settings)


# Validating an encoder that learns encodes all that is validated on, once an epoch.
@pytest.mark.parametrize(
    ("stages", "images", "texts"),
    [
        ({}, IMAGES, (2 + 3) * WORDS),
        ({"stage1": None}, IMAGES, WORDS),
        ({"stage1": replace(TUNE, trainable="both")}, (2 + 3) * IMAGES, (2 + 3) * WORDS),
        ({"stage1": replace(TUNE, trainable="image")}, (2 + 3) * IMAGES, WORDS),
        ({"stage1": replace(TUNE, seed=1)}, 2 * IMAGES, (2 + 3) * WORDS),
    ],
    ids=["text", "none", "both", "image", "another seed"],
)
def test_an_ablation_encodes_each_image_once(
    tmp_path: Path, stages: dict[str, Any], images: int, texts: int
) -> None:
    counts: Counter[str] = Counter()
    run(tmp_path, counted(counts), **stages)
    tried: Counter[str] = Counter() if stages.get("stage1", TUNE) is None else TRIED
    assert counts == Counter(image=images, text=texts) + tried


def test_two_stages_encode_each_image_once(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    data = Toy(tmp_path)
    parts: dict[str, Any] = {"loss": fc.InfoNCE(), "stage1": TUNE, "stage2": CONFIG}
    fc.TwoStageTrainer(counted(counts), fc.Combiner(DIM), **parts).fit(data)
    assert counts == Counter(image=IMAGES, text=WORDS) + TRIED


@pytest.mark.parametrize("gone", ["plain", "tuned/stage2", "plain tuned/stage2", "tuned"])
def test_an_ablation_of_which_a_part_is_over_ends_as_the_whole(tmp_path: Path, gone: str) -> None:
    whole = run(tmp_path, live := encoder(), tmp_path / "run")
    for part in gone.split():
        shutil.rmtree(tmp_path / "run" / part)
    again = run(tmp_path, other := encoder(), tmp_path / "run")
    expected, found = weights(live), weights(other)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    for row, evaluation in whole.evaluations.items():
        assert dict(again.evaluations[row]) == dict(evaluation), row


def test_rows_are_those_of_the_encoder_at_that_time(tmp_path: Path) -> None:
    both = replace(CONFIG, trainable=("text", "fusion"))
    result = run(tmp_path, live := encoder(), stage2=both)
    data = Toy(tmp_path)
    before = fc.evaluate(fc.ComposedEncoder(encoder(), fc.Sum()), data)
    assert dict(result.evaluations["plain, Sum"]) == dict(before)
    for name, fusion in (("Sum", fc.Sum()), ("Combiner", result.model.fusion)):
        now = fc.evaluate(fc.ComposedEncoder(live, fusion), data)
        assert dict(result.evaluations[f"tuned, {name}"]) == dict(now)


def test_a_head_that_learns_is_not_taken_for_its_old_self(tmp_path: Path) -> None:
    def headed() -> fc.DualEncoder:
        torch.manual_seed(0)
        text = WordText()
        return fc.DualEncoder(nn.Linear(4, 5), text, load, image_dim=5, text_dim=DIM, dim=DIM)

    # Adam would turn rounding noise in tiny gradients into other weights.
    models = [
        run(
            tmp_path,
            headed(),
            stage1=replace(TUNE, cache=cache, optimizer="sgd"),
            stage2=replace(CONFIG, cache=cache, optimizer="sgd"),
        ).model.state_dict()
        for cache in (True, False)
    ]
    for name, value in models[0].items():
        torch.testing.assert_close(value, models[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage1", [TUNE, None], ids=["tuned", "plain"])
def test_an_id_that_means_two_files_is_refused(
    tmp_path: Path, stage1: fc.StageConfig | None
) -> None:
    roots = tmp_path / "train", tmp_path / "val"
    for root in roots:
        root.mkdir()
    train, val = map(Toy, roots)
    (roots[1] / "3.png").write_bytes(b"another")
    with pytest.raises(ValueError, match="the image id '3' means two files"):
        ablation(
            encoder(), fc.Combiner(DIM), train, val, loss=fc.InfoNCE(), stage1=stage1, stage2=CONFIG
        )

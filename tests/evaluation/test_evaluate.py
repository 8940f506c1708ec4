"""Evaluation of live encoders, on a CPU and a GPU, and what cannot be evaluated."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluations import features_of, random_evaluation
from tasks import Toy, toy_task
from torch import Tensor, nn

from fusecomp.caching import CachedEncoder, PartlyCachedEncoder
from fusecomp.datasets import CIRR, FashionIQ
from fusecomp.encoders import DualEncoder
from fusecomp.evaluation import Evaluation, evaluate, rank
from fusecomp.fusions import Combiner, Sum
from fusecomp.model import ComposedEncoder
from fusecomp.types import Dataset, Encoder


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 4)

    def forward(self, texts: list[str]) -> Tensor:
        codes = [[ord(letter) / 64 for letter in text[:24].ljust(24)] for text in texts]
        out: Tensor = self.layer(torch.tensor(codes, device=self.layer.weight.device))
        return out


def load(path: Path) -> Tensor:
    return torch.tensor(list(path.read_bytes().ljust(8))).float() / 64


def test_a_live_encoder_gives_what_a_cached_one_gives(tiny_fashioniq: Path) -> None:
    torch.manual_seed(0)
    data = FashionIQ(tiny_fashioniq, "val", captions="averaged", exclude_reference=True)
    live = DualEncoder(nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.5)), Words(), load)
    fusion = Combiner(4)
    model = ComposedEncoder(live, fusion).train()
    from_live = evaluate(model, data)
    assert model.training
    assert fusion.relu_dropout.training
    cached = CachedEncoder.build(live, data)
    partly = PartlyCachedEncoder.build(live, data, sides=["image"])
    for encoder in (cached, partly):
        other = evaluate(ComposedEncoder(encoder, fusion), data)
        assert dict(other) == dict(from_live)
        for name, result in from_live.ranking.items():
            assert torch.equal(other.ranking[name].indices, result.indices)


def assert_equal_evaluations(one: Evaluation, other: Evaluation) -> None:
    """Equal but for the last digits of scores."""
    assert dict(one) == dict(other)
    for name, here in one.ranking.items():
        there = other.ranking[name]
        assert torch.equal(there.indices, here.indices)
        assert here.ranks is not None
        assert there.ranks is not None
        assert torch.equal(there.ranks, here.ranks)
        torch.testing.assert_close(there.scores, here.scores)


def test_a_gpu_ranks_as_a_cpu_does(tiny_fashioniq: Path, cuda: torch.device) -> None:
    torch.manual_seed(0)
    toy = Toy([toy_task("a"), toy_task("b", queries=1100)])
    data = FashionIQ(tiny_fashioniq, "val", captions="averaged", exclude_reference=True)
    live = DualEncoder(nn.Linear(8, 4), Words(), load)
    pairs: list[tuple[Encoder, Dataset]] = [(features_of(toy), toy), (live, data)]
    for encoder, dataset in pairs:
        model = ComposedEncoder(encoder, Combiner(4))
        here = evaluate(model, dataset)
        assert_equal_evaluations(here, evaluate(model.to(cuda), dataset))


def test_features_of_functions_are_ranked_on_the_gpu_of_the_fusion(
    tiny_fashioniq: Path, cuda: torch.device
) -> None:
    torch.manual_seed(0)
    data = FashionIQ(tiny_fashioniq, "val")
    weight, words = torch.randn(8, 4), Words()
    functions = DualEncoder(lambda p: p @ weight, lambda texts: words(texts), load)
    fusion = Combiner(4)
    here = evaluate(ComposedEncoder(functions, fusion), data)
    there = evaluate(ComposedEncoder(functions, fusion.to(cuda)), data)
    assert_equal_evaluations(here, there)


def test_missing_images_stop_the_evaluation(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val", ["dress"])
    data.path("Dval07").unlink()
    live = DualEncoder(nn.Linear(8, 4), Words(), load)
    with pytest.raises(FileNotFoundError, match=r"1 of 12 images are missing, .*Dval07"):
        evaluate(ComposedEncoder(live, Sum()), data)


def test_a_data_set_without_a_protocol_is_named_by_its_class() -> None:
    class Plain(Toy):
        pass

    data = Plain([toy_task()])
    encoder = features_of(data)
    del data.protocol
    assert rank(ComposedEncoder(encoder, Sum()), data).protocol == {"dataset": "Plain"}


@pytest.mark.parametrize("call", [evaluate, rank])
def test_swapped_or_other_arguments_are_named_with_their_order(call: Callable[..., Any]) -> None:
    data = Toy([toy_task()])
    encoder = features_of(data)
    model = ComposedEncoder(encoder, Sum())
    for arguments, message in (
        ((data, model), "model must be a ComposedEncoder, got Toy"),
        ((encoder, data), "model must be a ComposedEncoder, got CachedEncoder"),
        ((model, encoder), "dataset must be a Dataset, got CachedEncoder"),
    ):
        with pytest.raises(TypeError, match=f"{message}; the order is model, dataset"):
            call(*arguments)


def test_a_frame_has_one_row_a_task_with_units_in_its_columns(tiny_fashioniq: Path) -> None:
    evaluation = random_evaluation(FashionIQ(tiny_fashioniq, "val"))
    frame = evaluation.to_frame()
    assert list(frame.columns) == ["queries", "gallery images", "recall@10 (%)", "recall@50 (%)"]
    assert frame.index.name == "task"
    assert list(frame.index) == ["dress", "shirt", "toptee"]
    assert frame["queries"].tolist() == [8, 8, 8]
    assert frame["gallery images"].tolist() == [12, 12, 12]
    for task in frame.index:
        assert frame.loc[task, "recall@10 (%)"] == evaluation[f"{task}/recall@10"]
        assert frame.loc[task, "recall@50 (%)"] == evaluation[f"{task}/recall@50"]


def test_the_frame_of_a_task_without_a_name_has_all_its_metrics(tiny_cirr: Path) -> None:
    evaluation = random_evaluation(CIRR(tiny_cirr, "val"))
    frame = evaluation.to_frame()
    (row,) = frame.to_dict("records")
    assert {f"{name} (%)": value for name, value in evaluation.items()}.items() <= row.items()
    assert len(row) == len(evaluation) + 2


def test_without_pandas_the_extra_is_named(
    tiny_fashioniq: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = random_evaluation(FashionIQ(tiny_fashioniq, "val"))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_frame needs pandas: .*fusecomp\[report\]"):
        evaluation.to_frame()

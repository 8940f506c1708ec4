"""Every fusion trains exactly: by parts, after a break, on many processes."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exact import CONFIG, composed, furthest
from processes import Processes
from small_fusions import MAKE
from torch import Tensor
from toy import Toy

import fusecomp as fc

# The toy's texts are as wide as its images, and its loss compares by the cosine.
NAMES = [name for name in MAKE if "two widths" not in name]
NORMED = [name for name in NAMES if "BatchNorm" in str(MAKE[name]())]


def small_model(name: str) -> tuple[fc.ComposedEncoder, fc.StageConfig]:
    encoder = composed().encoder
    torch.manual_seed(1)
    fusion = MAKE[name]()
    learns = any(True for _ in fusion.parameters())
    config = replace(CONFIG, trainable=("both", "fusion") if learns else "both")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "CIRPLANT takes text_tokens")
        return fc.ComposedEncoder(encoder, fusion).double(), config


def trained(root: Path, name: str, micro_batch_size: int | None = None) -> dict[str, Tensor]:
    """All weights and statistics after two epochs of a full and an uneven batch."""
    model, config = small_model(name)
    # Adam would make a step of the rounding in the gradient of a bias before BatchNorm, which is 0.
    config = replace(config, optimizer="sgd", lr=0.1, micro_batch_size=micro_batch_size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "BatchNorm of the fusion")
        fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config).fit(Toy(root, rows=17))
    return dict(model.state_dict())


def far_from_start(name: str, weights: dict[str, Tensor]) -> bool:
    return furthest(dict(small_model(name)[0].state_dict()), weights) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_batch_give_the_weights_of_the_whole(tmp_path: Path, name: str) -> None:
    """BatchNorm too: the fusion runs once over the batch."""
    whole = trained(tmp_path, name)
    assert furthest(whole, trained(tmp_path, name, micro_batch_size=3)) < 1e-9
    assert far_from_start(name, whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, name: str) -> None:
    results = []
    for folder, epochs in (("straight", [2]), ("resumed", [1, 2])):
        for number in epochs:
            model, config = small_model(name)
            config = replace(config, epochs=number)
            data = Toy(tmp_path, rows=17)
            loss, workdir = fc.InfoNCE(0.1), tmp_path / folder
            fc.Trainer(model, loss=loss, config=config, workdir=workdir).fit(data)
        results.append(dict(model.state_dict()))
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in (*NORMED, "CIRPLANT", "Combiner", "ConvexGate")]
)
def test_two_processes_give_the_weights_of_one(tmp_path: Path, name: str, two: Processes) -> None:
    one = trained(tmp_path, name)
    for weights in two.run(trained, tmp_path, name):
        assert furthest(one, weights) < 1e-9


def warned_of(root: Path, name: str) -> list[str]:
    model, config = small_model(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = replace(config, micro_batch_size=5)
        fc.Trainer(model, loss=fc.InfoNCE(), config=config)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("name", NORMED)
def test_batchnorm_of_a_fusion_is_warned_of_on_many_processes_alone(
    tmp_path: Path, name: str, two: Processes
) -> None:
    assert warned_of(tmp_path, name) == []
    for messages in two.run(warned_of, tmp_path, name):
        assert [message.partition(" learns")[0] for message in messages] == [
            "BatchNorm of the fusion"
        ]


@pytest.mark.parametrize("name", NORMED)
def test_all_processes_end_with_one_count(tmp_path: Path, name: str, two: Processes) -> None:
    one, other = two.run(trained, tmp_path, name)
    assert furthest(one, other) == 0
    assert far_from_start(name, one)

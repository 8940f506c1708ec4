"""What a trainer prints, and how it answers arguments that are none."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy import CONFIG, Toy, composed, encoder

import fusecomp as fc
from fusecomp.training import batches


def test_what_is_printed_fits_a_line(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    run = fc.fit(composed(), data, fc.InfoNCE(), CONFIG, data)
    assert repr(run).startswith("Run(epoch ")
    assert repr(run).endswith("of 3 epochs; no workdir)")
    batch = next(batches(data, encoder(), CONFIG, epoch=0))
    assert repr(batch) == "Batch(4 triplets, reference [4, 4], 4 texts)"


def test_many_short_epochs_are_one_phase_in_a_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither silent nor a line for every epoch, also where it goes on in the middle of one."""
    clock = itertools.count()
    monkeypatch.setattr(
        "fusecomp._core.progress.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    trainer = fc.Trainer(composed(), Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, epochs=30))
    trainer.epoch, trainer.batch = 3, 2
    trainer.run()
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "training fusion: 41/90 steps, 1/s, 49 s left\n"
        "training fusion: 71/90 steps, 1/s, 19 s left\n"
        "training fusion: 90/90 steps, 0.99/s, 80 s\n"
    )


def test_a_loss_class_in_place_of_an_instance_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="loss is the class InfoNCE: pass an instance"):
        fc.Trainer(composed(), Toy(tmp_path), fc.InfoNCE, CONFIG)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [fc.Trainer, fc.fit])
@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((1, 0, 2, 3), "model must be a ComposedEncoder, got Toy"),
        ((0, 2, 1, 3), "train must be a Dataset, got InfoNCE"),
        ((0, 1, 3, 2), "loss must be callable, got StageConfig"),
        ((0, 1, 2, 1), "config must be a StageConfig, got Toy"),
        ((0, 1, 2, 3, 4), "validation must be a Dataset, got str"),
    ],
)
def test_swapped_arguments_are_named_with_their_order(
    tmp_path: Path, call: Callable[..., Any], order: tuple[int, ...], message: str
) -> None:
    given = [composed(), Toy(tmp_path), fc.InfoNCE(), CONFIG, "a workdir"]
    with pytest.raises(TypeError, match=f"{message}; the order is model, train, loss, config"):
        call(*(given[position] for position in order))

"""The comparison of losses: where it trains, and how it ends."""

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import command_line
import compare_losses
import pytest
import torch
from evaluations import random_model

import fusecomp as fc
from fusecomp.datasets import FashionIQ


def prepared(root: Path) -> Any:
    """Features of the dataset's own, in place of those of a drawn one."""
    data = FashionIQ(root, "train")
    return SimpleNamespace(train=data, encoder=random_model(data).encoder)


def test_the_combiner_goes_to_the_device(tiny_fashioniq: Path) -> None:
    args = argparse.Namespace(seed=0, quick=True, device="meta")
    # The features are still on the CPU here, so that the trainer tells where each is.
    with pytest.raises(ValueError, match="meta"):
        compare_losses.train(prepared(tiny_fashioniq), fc.InfoNCE(), args)


@pytest.mark.parametrize("error", [OSError, ValueError, ImportError])
def test_what_a_user_can_mend_ends_an_example_with_one_line(error: type[Exception]) -> None:
    def main() -> None:
        raise error("this needs open_clip")

    with pytest.raises(SystemExit, match=r"^error: this needs open_clip$"):
        command_line.command(main)


def test_ctrl_c_ends_an_example_with_one_line() -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match=r"^stopped; the same command goes on"):
        command_line.command(main)


@pytest.mark.heavy
def test_it_compares_every_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_losses.py", "--quick", "--workdir", str(tmp_path)])
    torch.manual_seed(0)
    compare_losses.main()
    table = capsys.readouterr().out.rpartition("R@10")[2]
    for name in ("InfoNCE, bank", "DistillationLoss", "SigmoidLoss"):
        assert name in table

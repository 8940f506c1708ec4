"""Paces and predictions: medians of laps, and hours that grow with the work."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import fashioniq_repro
import pytest
import torch
from forecast import Machine, WholeRun, Work, plan, predict, steps_of
from hypothesis import given
from hypothesis import strategies as st
from pace import Enough, Lap, Pace, TimedEncoder, pace
from torch import Tensor, nn

import fusecomp as fc

SECONDS = st.floats(1e-6, 1e6)
LAPS = st.lists(st.tuples(SECONDS, SECONDS, st.integers(1, 4096)), min_size=1, max_size=20)
CONFIG = fc.StageConfig(epochs=3, batch_size=4, lr=1e-3)


def test_a_pace_is_the_median_of_a_row() -> None:
    laps: list[Lap] = [(2.0, 1.0, 2), (3.0, 3.0, 1), (100.0, 50.0, 10)]
    assert pace(laps) == Pace(3.0, 3.0, 3)


def test_bursts_are_taken_together() -> None:
    # Two processes bring two batches at once.
    laps: list[Lap] = [(4.0, 1.0, 1), (0.1, 1.0, 1), (4.0, 1.0, 1)]
    assert pace(laps, together=2).seconds == pytest.approx(2.05)
    assert pace(laps).seconds == 4.0
    assert pace(laps[:1], together=2) == Pace(4.0, 1.0, 1)


@given(LAPS, st.integers(1, 5), st.integers(1, 50))
def test_slower_laps_give_a_slower_pace(laps: list[Lap], together: int, factor: int) -> None:
    one = pace(laps, together)
    slower = pace([(wall * factor, cpu, rows) for wall, cpu, rows in laps], together)
    assert slower.seconds == pytest.approx(factor * one.seconds)
    assert slower.cpu_seconds == pytest.approx(one.cpu_seconds)


@given(SECONDS, SECONDS, st.integers(0, 10**6), st.integers(0, 50))
def test_hours_are_linear_in_the_steps(wall: float, cpu: float, times: int, factor: int) -> None:
    paces = {"step": Pace(wall, cpu, 3)}
    one, more = (
        predict([Work("stage 1", "steps", n, "step")], paces)[0] for n in (times, factor * times)
    )
    assert more["hours"] == pytest.approx(factor * one["hours"])
    assert more["cpu_hours"] == pytest.approx(factor * one["cpu_hours"])
    assert one["hours"] == pytest.approx(times * wall / 3600)


def test_what_was_not_measured_has_no_hours() -> None:
    (row,) = predict([Work("stage 1", "steps", 3, "step")], {})
    assert "hours" not in row


@pytest.mark.parametrize(("drop_last", "steps"), [(True, 2), (False, 3)])
def test_the_steps_of_an_epoch_are_those_of_the_trainer(drop_last: bool, steps: int) -> None:
    config = replace(CONFIG, drop_last=drop_last)
    assert steps_of(10, config) == steps
    rows = [fc.Triplet(f"{n}", f"{n}", ("is red",), f"{n + 1}") for n in range(10)]
    data = fc.datasets.Triplets(rows)
    cached = fc.CachedEncoder.from_arrays(
        data.image_ids, torch.eye(11), data.texts(), torch.ones(1, 11)
    )
    trainer = fc.Trainer(
        fc.ComposedEncoder(cached, fc.Combiner(11)), loss=fc.InfoNCE(), config=config
    )
    trainer.prepare(data)
    assert trainer.total_steps == 3 * steps


def a_run(epochs: int, **changes: Any) -> WholeRun:
    names = ("features", "clip_checkpoint", "combiner_checkpoint", "micro_batch_size", "lr")
    args = {name: None for name in names}
    settings = {"data_root": "folder", "preset": "2022", "precision": "fp32", "seed": 0}
    settings |= {"quick": False, "epochs": [epochs, epochs], "batch_size": [4, 4]}
    rows = [fc.Triplet(f"{n}", f"{n}", (f"is {n}",), f"{n + 1}") for n in range(10)]
    data: Any = fc.datasets.Triplets(rows)
    small = fashioniq_repro.SMALL
    whole_args: Any = SimpleNamespace(**(args | settings | changes))
    return WholeRun(whole_args, data, data, small)


@given(st.integers(1, 300), st.sampled_from(["2022", "2023"]))
def test_twice_the_epochs_take_twice_the_stages(epochs: int, preset: str) -> None:
    one, two = (
        {w.does if w.phase == "extraction" else w.phase + w.pace: w for w in plan(run)}
        for run in (a_run(epochs, preset=preset), a_run(2 * epochs, preset=preset))
    )
    assert one.keys() == two.keys()
    for name, work in one.items():
        factor = 2 if work.phase.startswith("stage") else 1
        assert two[name].times == factor * work.times, name


def works(run: WholeRun) -> dict[str, int]:
    found: dict[str, int] = {}
    for work in plan(run):
        found[work.pace] = found.get(work.pace, 0) + work.times
    return found


def test_the_passes_are_those_of_the_ablation() -> None:
    # 11 images, 10 texts; drop_last leaves 2 steps of 4 an epoch.
    assert works(a_run(3)) == {
        "images": 11,
        "texts": 2 * 10 + 3 * 10,
        "stage 1 step": 3,
        "stage 1 first step": 3,
        "stage 1 saving": 3,
        "evaluation": 3 + 6,
        "stage 2 step": 2 * 3,
        "stage 2 first step": 2 * 3,
        "stage 2 saving": 2 * 3,
        "stage 2 validation": 2 * 3,
    }
    live = works(a_run(3, preset="2023"))
    assert live["images"] == 2 * 11 + 3 * 11
    scored = works(a_run(3, combiner_checkpoint="file"))
    assert scored == {"images": 11, "texts": 10, "evaluation": 2}
    looked_up = works(a_run(3, features="file"))
    assert looked_up["stage 2 step"] == 3
    assert "images" not in looked_up
    assert "stage 1 step" not in looked_up


class Slow(nn.Module):
    load_image = None

    def encode_image(self, images: Tensor) -> Tensor:
        return images

    def encode_text(self, texts: list[str]) -> Tensor:
        return torch.zeros(len(texts), 1)


@pytest.mark.parametrize(("warm_seconds", "batches"), [(1e9, 5), (0.0, 3)])
def test_an_extraction_ends_when_enough_is_measured(
    warm_seconds: float, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimedEncoder, "WARM_SECONDS", warm_seconds)
    encoder = TimedEncoder(Slow(), warm_up=3, wanted=2)
    for _ in range(batches - 1):
        encoder.encode_text(["is red"])
    with pytest.raises(Enough):
        encoder.encode_text(["is red"])
    assert len(encoder.steady()) == 2


def test_a_machine_tells_its_memory_and_disk(tmp_path: Any) -> None:
    machine = Machine.here(tmp_path, "cpu")
    assert machine.memory > 1e8
    assert machine.disk > 0

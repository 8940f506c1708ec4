"""What a trainer prints, and how it answers arguments that are none."""

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy import CONFIG, Toy, changed, composed, encoder, weights

import fusecomp as fc
from fusecomp.training import batches
from fusecomp.training._progress import Progress


def test_what_is_printed_fits_a_line(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    run = fc.Trainer(composed(), loss=fc.InfoNCE(), config=CONFIG).fit(data, data)
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
    trainer = fc.Trainer(composed(), loss=fc.InfoNCE(), config=replace(CONFIG, epochs=30))
    trainer._progress.epoch, trainer._progress.batch = 3, 2
    run = trainer.fit(Toy(tmp_path))
    out, err = capsys.readouterr()
    assert out == ""
    losses = {record["epoch"]: f"{record['loss']:.4g}" for record in run.history}
    assert err == (
        f"training fusion: 41/90 steps, 1/s, 49 s left; epoch 13: loss {losses[13]}\n"
        f"training fusion: 71/90 steps, 1/s, 19 s left; epoch 23: loss {losses[23]}\n"
        f"training fusion: 90/90 steps, 0.99/s, 80 s; epoch 30: loss {losses[30]}\n"
    )


def test_the_progress_shows_loss_and_deciding_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusecomp._core.progress._SHORT_SECONDS", 0.0)
    config = replace(CONFIG, metric=("recall@1", "mean"), eval_every_epochs=2)
    data = Toy(tmp_path)
    run = fc.Trainer(composed(), loss=fc.InfoNCE(), config=config).fit(data, data)
    last = run.history[-1]
    expected = f"; epoch 3: loss {last['loss']:.4g}, recall@1 {last['recall@1']:.4g}\n"
    assert capsys.readouterr().err.endswith(expected)


def test_the_latest_numbers_are_those_of_the_last_validation() -> None:
    records = [{"loss": 3.0, "mean": 1.0}, {"loss": 2.0, "mean": 7.0}, {"loss": 1.5}]
    assert Progress(epoch=3, history=list(records)).latest(("mean",)) == "epoch 3: loss 1.5, mean 7"
    assert Progress(epoch=1, history=[{"skipped": 2.0}]).latest(("mean",)) == ""
    assert Progress().latest(()) == ""


def test_a_loss_class_in_place_of_an_instance_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="loss is the class InfoNCE: pass an instance"):
        fc.Trainer(composed(), loss=fc.InfoNCE, config=CONFIG)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": encoder()}, "model must be a ComposedEncoder, got DualEncoder"),
        ({"loss": CONFIG}, "loss must be callable, got StageConfig"),
        ({"config": fc.InfoNCE()}, "config must be a StageConfig, got InfoNCE"),
        ({"workdir": 3}, "workdir must be a path, got 3"),
        ({"callbacks": "bar"}, "callbacks must be a list of objects with hooks, got str"),
    ],
)
def test_what_is_no_part_is_named_when_the_trainer_is_made(
    change: dict[str, Any], message: str
) -> None:
    parts = {"model": composed(), "loss": fc.InfoNCE(), "config": CONFIG}
    with pytest.raises(TypeError, match=message):
        fc.Trainer(**{**parts, **change})


@pytest.mark.parametrize("name", ["fit", "prepare"])
def test_datasets_are_checked_first_and_may_be_given_again(tmp_path: Path, name: str) -> None:
    data = Toy(tmp_path)
    trainer = fc.Trainer(composed(), loss=fc.InfoNCE(), config=CONFIG)
    call = getattr(trainer, name)
    wrong: list[tuple[tuple[Any, ...], str]] = [
        ((fc.InfoNCE(),), "train_dataset must be a Dataset, got InfoNCE; the order is"),
        ((data, "a workdir"), "val_dataset must be a Dataset, got str; the order is train_dataset"),
    ]
    for datasets, message in wrong:
        with pytest.raises(TypeError, match=message):
            call(*datasets)
    call(data, data)


@pytest.mark.parametrize("first", ["fit", "prepare"])
@pytest.mark.parametrize("second", ["fit", "prepare"])
def test_a_trainer_trains_once(tmp_path: Path, first: str, second: str) -> None:
    data, model = Toy(tmp_path), composed()
    trainer = fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG)
    assert trainer.total_steps == 0
    getattr(trainer, first)(data)
    assert trainer.total_steps == 9
    before = weights(model)
    with pytest.raises(ValueError, match="has its datasets already, and trains once: make another"):
        getattr(trainer, second)(data)
    assert not changed(before, weights(model))


def test_another_trainer_goes_on_from_the_weights(tmp_path: Path) -> None:
    data, model = Toy(tmp_path), composed()
    started = []

    class Watch:
        def on_start(self, trainer: fc.Trainer) -> None:
            started.append(weights(trainer.model))

    ended = []
    for _ in range(2):
        fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG, callbacks=[Watch()]).fit(data)
        ended.append(weights(model))
    assert not changed(ended[0], started[1])
    assert changed(ended[0], ended[1])


def test_a_step_needs_the_datasets_before(tmp_path: Path) -> None:
    trainer = fc.Trainer(composed(), loss=fc.InfoNCE(), config=CONFIG)
    batch = next(batches(Toy(tmp_path), encoder(), CONFIG, epoch=0))
    with pytest.raises(ValueError, match=r"call prepare\(train_dataset\) before"):
        trainer.step(batch)
    assert trainer.steps == 0


def test_the_model_that_fits_no_trainer_is_named_before_any_data() -> None:
    half = composed().half()
    with pytest.raises(ValueError, match="half precision rounds most"):
        fc.Trainer(half, loss=fc.InfoNCE(), config=CONFIG)

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import Stop, StopAt
from torch import Tensor
from toy import CONFIG, DIM, Toy, assert_equal_weights, changed, encoder, weights

import fusecomp as fc
from fusecomp.training import Run


def two_stage(workdir: Path | None, loss: object = None) -> fc.TwoStageTrainer:
    torch.manual_seed(0)
    return fc.TwoStageTrainer(
        encoder(),
        fc.Combiner(DIM),
        loss=loss or fc.InfoNCE(),  # type: ignore[arg-type]
        stage1=replace(CONFIG, trainable="text"),
        stage2=CONFIG,
        workdir=workdir,
    )


def test_it_is_two_trainers_in_a_row(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    run = two_stage(None).fit(data, data)
    torch.manual_seed(0)
    live = encoder()
    combiner = fc.Combiner(DIM)
    first = fc.fit(
        fc.ComposedEncoder(live, fc.Sum()),
        data,
        fc.InfoNCE(),
        replace(CONFIG, trainable="text"),
        data,
    )
    second = fc.fit(fc.ComposedEncoder(live, combiner), data, fc.InfoNCE(), CONFIG, data)
    assert_equal_weights(run.model, second.model)
    assert run.history == second.history
    assert run.stage1 is not None
    assert run.stage1.history == first.history


def test_stage2_leaves_the_encoder_alone(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    trainer = two_stage(None)
    trainer.stage1 = None
    before = weights(trainer.encoder)  # type: ignore[arg-type]
    run = trainer.fit(data, data)
    assert run.stage1 is None
    assert not changed(before, weights(trainer.encoder))  # type: ignore[arg-type]


@pytest.mark.parametrize("stop", [2, 8, 10, 16])
def test_stopped_in_either_stage_and_resumed(tmp_path: Path, stop: int) -> None:
    data = Toy(tmp_path)
    straight = two_stage(tmp_path / "straight", StopAt(-1)).fit(data, data)
    stops = StopAt(stop)
    with pytest.raises(Stop):
        two_stage(tmp_path / "run", (stops, stops)).fit(data, data)
    resumed: Run = two_stage(tmp_path / "run", StopAt(-1)).fit(data, data)
    assert_equal_weights(straight.model, resumed.model)
    assert straight.history == resumed.history
    assert straight.stage1 is not None
    assert resumed.stage1 is not None
    assert straight.stage1.metrics == resumed.stage1.metrics


def test_each_stage_has_its_own_loss() -> None:
    given = fc.InfoNCE()
    one = two_stage(None, given)
    assert len({id(loss) for loss in (given, *one.losses)}) == 3
    pair = (fc.InfoNCE(0.1), fc.InfoNCE(0.2))
    assert two_stage(None, pair).losses == pair


def test_a_triple_of_losses_is_refused() -> None:
    with pytest.raises(ValueError, match="one loss or a pair, got 3"):
        two_stage(None, (fc.InfoNCE(),) * 3)


def test_errors_of_the_second_stage_come_before_the_first(tmp_path: Path) -> None:
    trainer = two_stage(tmp_path / "run")
    trainer.stage2 = replace(CONFIG, metric="typo")
    before = weights(trainer.encoder)  # type: ignore[arg-type]
    data = Toy(tmp_path)
    with pytest.raises(ValueError, match="unknown metric 'typo'"):
        trainer.fit(data, data)
    assert not changed(before, weights(trainer.encoder))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_the_average_of_the_second_stage_begins_where_the_first_ended(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    trainer = two_stage(None)
    trainer.stage2 = replace(CONFIG, trainable=("text", "fusion"), ema_decay=0.9999, lr=1e-12)
    before = weights(trainer.encoder)  # type: ignore[arg-type]
    learnt: list[dict[str, Tensor]] = []

    class Watch:
        def on_end(self, trainer: fc.Trainer, run: fc.Run) -> None:
            learnt.append(weights(trainer.model.encoder))  # type: ignore[arg-type]

    trainer.callbacks = (Watch(),)
    trainer.fit(data)
    first, second = learnt
    assert changed(before, first)
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": fc.Combiner(DIM)}, "encoder must be an encoder, got Combiner; the order is"),
        ({"fusion": "sum"}, "fusion must be callable, got str"),
        ({"stage2": None}, "stage2 must be a StageConfig, got NoneType"),
        ({"stage1": "text"}, "stage1 must be a StageConfig, got str"),
    ],
)
def test_what_is_no_part_is_named_at_once(change: dict[str, Any], message: str) -> None:
    parts = {"encoder": encoder(), "fusion": fc.Sum(), "loss": fc.InfoNCE()}
    with pytest.raises(TypeError, match=message):
        fc.TwoStageTrainer(**{**parts, "stage1": CONFIG, "stage2": CONFIG, **change})

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import Stop, StopAt
from torch import Tensor
from toy import CONFIG, DIM, Toy, assert_equal_weights, changed, encoder, weights

import fusecomp as fc
from fusecomp import fusions
from fusecomp.training import Run


def two_stage(workdir: Path | None, loss: object = None, **change: Any) -> fc.TwoStageTrainer:
    torch.manual_seed(0)
    settings = {"stage1": replace(CONFIG, trainable="text"), "stage2": CONFIG, **change}
    return fc.TwoStageTrainer(
        encoder(),
        fc.Combiner(DIM),
        loss=loss or fc.InfoNCE(),  # type: ignore[arg-type]
        workdir=workdir,
        **settings,
    )


FIRST_FUSIONS: dict[str, Any] = {
    "default": (None, fc.Sum),
    "weighted": (fusions.WeightedSum(0.3), lambda: fusions.WeightedSum(0.3)),
    "function": (torch.mul, lambda: torch.mul),
}


@pytest.mark.parametrize("name", FIRST_FUSIONS)
def test_it_is_two_trainers_in_a_row(tmp_path: Path, name: str) -> None:
    given, make = FIRST_FUSIONS[name]
    data = Toy(tmp_path)
    run = two_stage(None, stage1_fusion=given).fit(data, data)
    torch.manual_seed(0)
    live = encoder()
    combiner = fc.Combiner(DIM)
    first = fc.Trainer(
        fc.ComposedEncoder(live, make()),
        loss=fc.InfoNCE(),
        config=replace(CONFIG, trainable="text"),
    ).fit(data, data)
    second = fc.Trainer(fc.ComposedEncoder(live, combiner), loss=fc.InfoNCE(), config=CONFIG).fit(
        data, data
    )
    assert_equal_weights(run.model, second.model)
    assert run.history == second.history
    assert run.stage1 is not None
    assert run.stage1.history == first.history


def test_stage2_leaves_the_encoder_alone(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    trainer = two_stage(None, stage1=None)
    before = weights(trainer.stage2.model)
    run = trainer.fit(data, data)
    assert run.stage1 is None
    moved = changed(before, weights(trainer.stage2.model))
    assert {name.split(".")[0] for name in moved} == {"fusion"}


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


LEARN_BOTH = replace(CONFIG, trainable=("text", "fusion"))


def learned_sum() -> fusions.WeightedSum:
    return fusions.WeightedSum(0.3, learned=True)


@pytest.mark.parametrize("learns", [False, True])
def test_the_first_fusion_learns_if_its_stage_says_so(tmp_path: Path, learns: bool) -> None:
    data, fusion = Toy(tmp_path), learned_sum()
    before = weights(fusion)
    stage1 = LEARN_BOTH if learns else replace(CONFIG, trainable="text")
    with nullcontext() if learns else pytest.warns(UserWarning, match="does not name 'fusion'"):
        trainer = two_stage(None, stage1=stage1, stage1_fusion=fusion)
    run = trainer.fit(data)
    assert bool(changed(before, weights(fusion))) is learns
    assert isinstance(run.model.fusion, fc.Combiner)


def test_a_first_fusion_that_is_frozen_on_purpose_needs_no_warning() -> None:
    two_stage(None, stage1_fusion=learned_sum().requires_grad_(False))


def test_one_fusion_for_both_stages_goes_on_from_the_first(tmp_path: Path) -> None:
    data, fusion = Toy(tmp_path), learned_sum()
    after: list[dict[str, Tensor]] = []

    class Watch:
        def on_start(self, trainer: fc.Trainer) -> None:
            after.append(weights(fusion))

    torch.manual_seed(0)
    settings: dict[str, Any] = {"loss": fc.InfoNCE(), "stage1": LEARN_BOTH, "stage2": CONFIG}
    fc.TwoStageTrainer(
        encoder(), fusion, **settings, stage1_fusion=fusion, callbacks=(Watch(),)
    ).fit(data)
    assert changed(weights(learned_sum()), after[1])
    assert changed(after[1], weights(fusion))


@pytest.mark.parametrize("stop", [2, 8, 10])
def test_a_first_fusion_that_learns_resumes(tmp_path: Path, stop: int) -> None:
    data, settings = Toy(tmp_path), {"stage1": LEARN_BOTH}
    straight = two_stage(tmp_path / "straight", StopAt(-1), **settings, stage1_fusion=learned_sum())
    expected, stops = straight.fit(data, data), StopAt(stop)
    with pytest.raises(Stop):
        two_stage(tmp_path / "run", (stops, stops), **settings, stage1_fusion=learned_sum()).fit(
            data, data
        )
    resumed = two_stage(tmp_path / "run", StopAt(-1), **settings, stage1_fusion=learned_sum())
    found = resumed.fit(data, data)
    assert_equal_weights(expected.model, found.model)
    assert expected.stage1 is not None
    assert found.stage1 is not None
    assert_equal_weights(expected.stage1.model, found.stage1.model)


def test_a_workdir_belongs_to_one_first_fusion(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    two_stage(tmp_path / "run").fit(data)
    with pytest.raises(ValueError, match="WeightedSum"):
        two_stage(tmp_path / "run", stage1_fusion=fusions.WeightedSum(0.3)).fit(data)
    with pytest.raises(ValueError, match="stage1_fusion needs stage1, which is None"):
        two_stage(None, stage1=None, stage1_fusion=fc.Sum())


def losses_of(trainer: fc.TwoStageTrainer) -> list[Any]:
    assert trainer.stage1 is not None
    return [trainer.stage1.loss, trainer.stage2.loss]


def test_each_stage_has_its_own_loss() -> None:
    given = fc.InfoNCE()
    assert len({id(loss) for loss in (given, *losses_of(two_stage(None, given)))}) == 3
    pair = (fc.InfoNCE(0.1), fc.InfoNCE(0.2))
    assert losses_of(two_stage(None, pair)) == list(pair)


def test_a_triple_of_losses_is_refused() -> None:
    with pytest.raises(ValueError, match="one loss or a pair, got 3"):
        two_stage(None, (fc.InfoNCE(),) * 3)


def test_errors_of_the_second_stage_come_before_the_first(tmp_path: Path) -> None:
    trainer = two_stage(tmp_path / "run", stage2=replace(CONFIG, metric="typo"))
    before = weights(trainer.stage2.model)
    data = Toy(tmp_path)
    with pytest.raises(ValueError, match="unknown metric 'typo'"):
        trainer.fit(data, data)
    assert not changed(before, weights(trainer.stage2.model))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_settings_that_fit_no_model_are_named_at_once(stage: str) -> None:
    with pytest.raises(ValueError, match=r"trainable='nothing\.\*' names nothing that can learn"):
        two_stage(None, **{stage: replace(CONFIG, trainable="nothing.*")})


def test_both_stages_train_once(tmp_path: Path) -> None:
    data, trainer = Toy(tmp_path), two_stage(None)
    trainer.fit(data)
    before = weights(trainer.stage2.model)
    with pytest.raises(ValueError, match="has its datasets already, and trains once"):
        trainer.fit(data)
    assert not changed(before, weights(trainer.stage2.model))


def test_the_average_of_the_second_stage_begins_where_the_first_ended(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    learnt: list[dict[str, Tensor]] = []

    class Watch:
        def on_end(self, trainer: fc.Trainer, run: fc.Run) -> None:
            learnt.append(weights(trainer.model.get_submodule("encoder")))

    second = replace(CONFIG, trainable=("text", "fusion"), ema_decay=0.9999, lr=1e-12)
    trainer = two_stage(None, stage2=second, callbacks=(Watch(),))
    before = weights(trainer.stage2.model.get_submodule("encoder"))
    trainer.fit(data)
    first, last = learnt
    assert changed(before, first)
    for name, weight in first.items():
        torch.testing.assert_close(last[name], weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": fc.Combiner(DIM)}, "encoder must be an encoder, got Combiner; the order is"),
        ({"fusion": "sum"}, "fusion must be callable, got str"),
        ({"stage1_fusion": "sum"}, "stage1_fusion must be callable, got str"),
        ({"stage2": None}, "stage2 must be a StageConfig, got NoneType"),
        ({"stage1": "text"}, "stage1 must be a StageConfig, got str"),
    ],
)
def test_what_is_no_part_is_named_at_once(change: dict[str, Any], message: str) -> None:
    parts = {"encoder": encoder(), "fusion": fc.Sum(), "loss": fc.InfoNCE()}
    with pytest.raises(TypeError, match=message):
        fc.TwoStageTrainer(**{**parts, "stage1": CONFIG, "stage2": CONFIG, **change})

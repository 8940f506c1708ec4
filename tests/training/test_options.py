"""What else a stage can be told: schedules, clipping, averages, stopping, best weights, hooks."""

import copy
import json
import math
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy import DIM, NormedSum, Toy, assert_same, encoder, weights

import fusecomp as fc
from fusecomp.files import read_tensors
from fusecomp.losses import LearnableTemperature, Queue
from fusecomp.training import NonFiniteError, batches
from fusecomp.training._optimizer import rate_factor
from fusecomp.training._outcome import Outcome

CONFIG = fc.StageConfig(epochs=4, batch_size=5, lr=0.05)


def composed(dropout: float = 0.0) -> fc.ComposedEncoder:
    return fc.ComposedEncoder(encoder(), fc.Combiner(DIM, dropout=dropout))


def fit(root: Path, config: fc.StageConfig, **more: Any) -> fc.Run:
    return fc.fit(composed(), Toy(root), fc.InfoNCE(0.1), config, **more)


# The learning rate


@given(st.sampled_from(["constant", "cosine", "linear"]), st.integers(0, 20), st.integers(1, 100))
def test_the_rate_rises_and_falls_within_its_bounds(schedule: str, warmup: int, steps: int) -> None:
    config = replace(CONFIG, schedule=schedule, warmup=warmup)
    factors = [rate_factor(config, step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    if steps > warmup:
        assert factors[warmup] == 1


@pytest.mark.parametrize("steps", [4, 10])
def test_the_rate_is_that_of_the_formula_and_never_rises_again(steps: int) -> None:
    config = replace(CONFIG, warmup=2)
    for step in range(2, 3 * steps):
        done = min(1, (step - 2) / (steps - 2))
        for schedule, expected in (
            ("constant", 1),
            ("linear", 1 - done),
            ("cosine", (1 + math.cos(math.pi * done)) / 2),
        ):
            factor = rate_factor(replace(config, schedule=schedule), step, steps)
            assert factor == pytest.approx(expected, abs=1e-12)


def test_the_rate_reaches_the_optimiser_and_the_record(tmp_path: Path) -> None:
    run = fit(tmp_path, replace(CONFIG, schedule="linear", warmup=2))
    # Eight steps: 1/2, 1, then 1, 5/6, ... down.
    assert [r["lr"] / CONFIG.lr for r in run.history] == pytest.approx([1, 5 / 6, 3 / 6, 1 / 6])


def test_patterns_have_rates_of_their_own(tmp_path: Path) -> None:
    lr_of = {"encoder.*": 0.001, "fusion.*output*": 0.002, "fusion.output*": 0.0}
    config = replace(CONFIG, train=("text", "fusion"), lr_of=lr_of)
    trainer = fc.Trainer(composed(), Toy(tmp_path), fc.InfoNCE(), config)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    rates = {names[id(p)]: g["lr"] for g in trainer.optimizer.param_groups for p in g["params"]}
    assert rates["encoder.text.embedding.weight"] == 0.001
    assert rates["fusion.output_layer.weight"] == 0.0
    assert rates["fusion.combiner_layer.weight"] == 0.05
    of_loss = replace(CONFIG, lr_of={"loss.temperature*": 0.002})
    temperature = LearnableTemperature()
    loss = fc.InfoNCE(temperature)
    groups = fc.Trainer(composed(), Toy(tmp_path), loss, of_loss).optimizer.param_groups
    assert [g["lr"] for g in groups for p in g["params"] if p is temperature.log_scale] == [0.002]
    with pytest.raises(ValueError, match=r"lr_of: no learning parameter matches 'fusion\.nothing'"):
        replaced = replace(config, lr_of={"fusion.nothing": 0.1})
        fc.Trainer(composed(), Toy(tmp_path), fc.InfoNCE(), replaced)


@pytest.mark.parametrize(
    ("no_decay", "without"),
    [(None, {"bias"}), ((), set()), (("fusion.*.weight",), {"weight"})],
)
def test_what_decays(tmp_path: Path, no_decay: tuple[str, ...] | None, without: set[str]) -> None:
    class Tempered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, query: Tensor, target: Tensor) -> Tensor:
            return (query - target).square().mean() * self.scale

    config = replace(CONFIG, no_decay=no_decay, weight_decay=0.1)
    trainer = fc.Trainer(composed(), Toy(tmp_path), Tempered(), config)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    found = {
        names.get(id(p), "scale").rpartition(".")[2]
        for group in trainer.optimizer.param_groups
        for p in group["params"]
        if group["weight_decay"] == 0
    }
    assert found == {*without, "scale"}


# Clipping, averaging


def test_long_gradients_are_scaled_down(tmp_path: Path) -> None:
    config = replace(CONFIG, optimizer="sgd", lr=1.0, epochs=1)
    moved = []
    for clip in (None, 1e-3, 1e9):
        model = composed()
        before = weights(model)
        trainer = fc.Trainer(model, Toy(tmp_path), fc.InfoNCE(0.1), replace(config, clip=clip))
        trainer.step(next(batches(trainer.train, trainer.encoder, config, epoch=0)))
        after = weights(model)
        moved.append(torch.cat([(after[n] - before[n]).flatten() for n in before]))
    assert moved[1].norm().item() == pytest.approx(1e-3, rel=1e-4)
    assert torch.equal(moved[0], moved[2])
    assert torch.cosine_similarity(moved[0], moved[1], dim=0).item() == pytest.approx(1)


def test_the_average_is_what_is_evaluated_and_returned(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    seen: list[dict[str, Tensor]] = []

    class Watch:
        def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
            seen.append(weights(trainer.model))

    model = composed()
    average = {name: weight.double() for name, weight in weights(model).items()}
    run = fc.fit(model, data, fc.InfoNCE(0.1), replace(CONFIG, ema=0.8), callbacks=[Watch()])
    for step in seen:
        average = {n: 0.8 * average[n] + 0.2 * step[n].double() for n in average}
    for name, weight in weights(run.model).items():
        torch.testing.assert_close(weight.double(), average[name], rtol=1e-4, atol=1e-6)
    with_validation = fc.fit(
        composed(), data, fc.InfoNCE(0.1), replace(CONFIG, ema=0.8, eval_every=4), data
    )
    for name, weight in weights(with_validation.model).items():
        torch.testing.assert_close(weight, weights(run.model)[name])


# What is not finite


class Sometimes:
    """NaN in the steps given."""

    def __init__(self, *bad: int) -> None:
        self.bad = bad
        self.calls = 0

    def __call__(self, query: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        factor = torch.nan if self.calls - 1 in self.bad else 1.0
        loss: Tensor = factor * fc.InfoNCE(0.1)(query, target)
        return loss


def test_a_broken_step_can_be_left_out(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    config = replace(CONFIG, nonfinite="skip")
    states: list[dict[str, Tensor]] = []

    class Watch:
        def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
            states.append(weights(trainer.model))

    run = fc.fit(composed(), data, Sometimes(3), config, callbacks=[Watch()])
    same = [all(torch.equal(a[n], b[n]) for n in a) for a, b in pairwise(states)]
    assert same == [False, False, True, False, False, False, False]
    assert [record.get("skipped", 0) for record in run.history] == [0, 1, 0, 0]
    with pytest.raises(NonFiniteError, match="each of the 2 steps of an epoch was left out"):
        fc.fit(composed(), data, Sometimes(*range(9)), config)
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        fc.fit(composed(), data, Sometimes(3), CONFIG)


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_broken_batch_leaves_batchnorm_as_it_was(tmp_path: Path, nonfinite: str) -> None:
    model = fc.ComposedEncoder(encoder(), NormedSum())
    config = replace(CONFIG, nonfinite=nonfinite, cache=False)
    trainer = fc.Trainer(model, Toy(tmp_path), fc.InfoNCE(), config)
    made = batches(trainer.train, trainer.encoder, config, epoch=0)
    trainer.step(next(made))
    before = copy.deepcopy(model.state_dict())
    broken = next(made)
    broken.reference[1] = torch.nan
    with pytest.raises(NonFiniteError) if nonfinite == "raise" else nullcontext():
        trainer.step(broken)
    assert_same(dict(before), dict(model.state_dict()))
    trainer.step(next(batches(trainer.train, trainer.encoder, config, epoch=1)))
    assert before["fusion.norm.num_batches_tracked"] == 1
    assert model.state_dict()["fusion.norm.num_batches_tracked"] == 2


def test_an_epoch_in_which_the_scale_of_fp16_was_found_goes_on(tmp_path: Path) -> None:
    """As on a GPU, whose first steps may all overflow; stood for by a scaler that says so."""
    trainer = fc.Trainer(composed(), Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, epochs=2))
    real, calls = trainer._step, count()

    class Overflowing:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        scaler = SimpleNamespace(is_enabled=lambda: True, state_dict=dict)

        def __call__(self, *arguments: Any) -> Outcome:
            done = real(*arguments)
            return done._replace(gradient_norm=math.inf) if next(calls) < 2 else done

    trainer._step = Overflowing()  # type: ignore[assignment]
    first, second = trainer.run().history
    assert first["skipped"] == 2
    assert "loss" not in first
    assert second["loss"] > 0


def test_layers_with_sparse_gradients_are_named(tmp_path: Path) -> None:
    sparse = encoder()
    sparse.text.embedding = nn.Embedding(5, DIM, sparse=True)  # type: ignore[attr-defined]
    model = fc.ComposedEncoder(sparse, fc.Combiner(DIM))
    with pytest.raises(ValueError, match=r"encoder\.text\.embedding has sparse gradients"):
        fc.Trainer(model, Toy(tmp_path), fc.InfoNCE(), replace(CONFIG, train="text"))
    fc.Trainer(model, Toy(tmp_path), fc.InfoNCE(), CONFIG)


def test_a_queue_is_filled_whatever_mode_the_loss_was_in(tmp_path: Path) -> None:
    loss = fc.InfoNCE(0.1, queue=Queue(8, DIM)).eval()
    fc.fit(composed(), Toy(tmp_path), loss, replace(CONFIG, epochs=1))
    assert loss.queue is not None
    assert loss.queue.pushed == 10
    assert not loss.training


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda query, target: 0.5, "must return a scalar, got 0.5"),
        (lambda query, target: query.detach().sum(), "the loss has no gradient"),
    ],
)
def test_a_loss_without_a_gradient_is_refused(tmp_path: Path, loss: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fc.fit(composed(), Toy(tmp_path), loss, CONFIG)


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("broken", ["feature", "loss"])
def test_a_broken_step_leaves_everything_as_it_is(
    tmp_path: Path, nonfinite: str, precision: str, broken: str
) -> None:
    """To the bit: weights, the optimiser's state, the average; clipping would spread NaN."""
    config = replace(CONFIG, precision=precision, clip=0.5, ema=0.9, cache=False)
    loss = Sometimes(1 if broken == "loss" else 99)
    data = Toy(tmp_path)
    trainer = fc.Trainer(composed(), data, loss, replace(config, nonfinite=nonfinite))
    batch = next(batches(data, trainer.encoder, config, epoch=0))
    trainer.step(batch)  # so that the optimiser has a state

    def state() -> dict[str, Any]:
        assert trainer._average is not None
        optimizer, average = trainer.optimizer.state_dict(), trainer._average.state_dict()
        return copy.deepcopy(
            {"weights": weights(trainer.model), "optimizer": optimizer, "average": average}
        )

    before = state()
    assert len(before["optimizer"]["state"]) == len(list(trainer.model.fusion.parameters()))  # type: ignore[attr-defined]
    if broken == "feature":
        batch.reference[2] = torch.nan
    if nonfinite == "skip":
        assert trainer.step(batch).isnan()
    else:
        with pytest.raises(NonFiniteError, match="nothing was updated"):
            trainer.step(batch)
    assert_same(before, state())


def test_a_loss_that_remembers_never_sees_what_is_broken(tmp_path: Path) -> None:
    class Memory(nn.Module):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(DIM))

        def forward(self, query: Tensor, target: Tensor) -> Tensor:
            self.seen += target.detach().sum(0)
            loss: Tensor = fc.InfoNCE(0.1)(query, target)
            return loss

    loss = Memory()
    trainer = fc.Trainer(composed(), Toy(tmp_path), loss, replace(CONFIG, cache=False))
    batch = next(batches(trainer.train, trainer.encoder, trainer.config, epoch=0))
    batch.target[2] = torch.nan
    with pytest.raises(NonFiniteError, match=batch.query_ids[2]):
        trainer.step(batch)
    assert not loss.seen.any()


# Stopping, and the best weights


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[dict[str, float]]) -> None:
    """Validation gives these metrics, one epoch after another."""
    given = iter(scores)
    real = fc.evaluate

    def evaluate(*arguments: Any, **more: Any) -> fc.Evaluation:
        evaluation = real(*arguments, **more)
        return replace(evaluation, metrics={**evaluation.metrics, **next(given)})

    monkeypatch.setattr("fusecomp.training._trainer.evaluate", evaluate)


def means(*values: float) -> list[dict[str, float]]:
    return [{"mean": value} for value in values]


def test_it_stops_when_nothing_gets_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, means(1, 3, 3, 2, 9))
    data = Toy(tmp_path)
    config = replace(CONFIG, epochs=9, patience=2)
    run = fit(tmp_path, config, validation=data, workdir=tmp_path / "run")
    assert [record["mean"] for record in run.history] == [1, 3, 3, 2]
    assert run.metrics["epoch"] == 2
    # The same call again neither trains nor validates.
    again = fit(tmp_path, config, validation=data, workdir=tmp_path / "run")
    assert again.history == run.history


def test_several_best_weights_by_several_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(1, 9), (4, 5), (3, 7), (2, 8)]
    scripted(monkeypatch, [{"recall@1": a, "recall@5": b} for a, b in rows])
    data, folder = Toy(tmp_path), tmp_path / "run"
    config = replace(CONFIG, metric=("recall@1", "recall@5"), keep=2)
    states: dict[int, dict[str, Tensor]] = {}

    class Watch:
        def on_evaluation(self, trainer: fc.Trainer, evaluation: fc.Evaluation) -> None:
            states[trainer.epoch] = weights(trainer.model)

    run = fit(tmp_path, config, validation=data, workdir=folder, callbacks=[Watch()])
    kept = {path.name for path in (folder / "best").iterdir()}
    assert kept == {
        "recall-1-epoch-2.pt",
        "recall-1-epoch-3.pt",
        "recall-5-epoch-1.pt",
        "recall-5-epoch-4.pt",
    }
    saved = read_tensors(folder / "best" / "recall-5-epoch-4.pt")["weights"]["model"]
    assert all(torch.equal(saved[name], states[4][name]) for name in saved)
    assert run.metrics["epoch"] == 2
    assert all(torch.equal(w, states[2][name]) for name, w in weights(run.model).items())


def test_better_weights_do_not_pile_up_between_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint's best weights stay too, as a resumed run needs them."""
    scripted(monkeypatch, means(*range(1, 9)))
    data, folder = Toy(tmp_path), tmp_path / "run"
    there = []

    class Watch:
        def on_epoch(self, trainer: fc.Trainer, record: dict[str, float]) -> None:
            there.append(sorted(path.stem for path in (folder / "best").iterdir()))

    config = replace(CONFIG, epochs=8, save_every=6)
    fit(tmp_path, config, validation=data, workdir=folder, callbacks=[Watch()])
    names = [f"mean-epoch-{epoch}" for epoch in range(9)]
    # After six steps, in the third epoch, the checkpoint knows of the second epoch's weights.
    assert there[:3] == [[names[1]], [names[2]], [names[2], names[3]]]
    assert there[4] == [names[2], names[5]]
    assert [path.stem for path in (folder / "best").iterdir()] == [names[8]]


def test_unknown_metrics_list_the_valid_ones(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    config = replace(CONFIG, metric=("recall@1", "recall@7"))
    with pytest.raises(ValueError, match=r"unknown metric 'recall@7'; valid: recall@1, recall@5"):
        fit(tmp_path, config, validation=data)
    with pytest.raises(ValueError, match="patience=3 needs a validation dataset"):
        fit(tmp_path, replace(CONFIG, patience=3))


# Zero is a value, and no other word for None


ZEROS: dict[str, Any] = {
    "lr": 0.0,
    "lr_of": {"fusion.*": 0.0},
    "weight_decay": 0.0,
    "ema": 0.0,
    "warmup": 0,
    "workers": 0,
    "seed": 0,
}


@settings(max_examples=15, deadline=None)
@given(st.sets(st.sampled_from(sorted(ZEROS))), st.sampled_from(["adam", "adamw", "sgd"]))
def test_zeros_do_what_zero_means(names: set[str], optimizer: str) -> None:
    root = Path(tempfile.mkdtemp())
    zeros = {name: ZEROS[name] for name in names}
    plain = {"epochs": 1, "optimizer": optimizer, "weight_decay": 0.5, "ema": 0.6, "seed": 3}
    config = replace(CONFIG, **{**plain, **zeros})
    model = composed()
    before = weights(model)
    trainer = fc.Trainer(model, Toy(root), fc.InfoNCE(0.1), config)
    decays = {group["weight_decay"] for group in trainer.optimizer.param_groups}
    assert decays == ({0.0} if "weight_decay" in names else {0.0, 0.5})
    for batch in batches(trainer.train, trainer.encoder, config, epoch=0):
        trainer.step(batch)
    last, average = weights(model), trainer._average
    assert average is not None
    moves = not names & {"lr", "lr_of"}
    assert any(not torch.equal(last[name], before[name]) for name in last) is moves
    # An average that forgets everything is the last weights.
    same = all(torch.equal(value, last[name]) for name, value in average.state_dict().items())
    assert same is ("ema" in names or not moves)


# Hooks


class Journal:
    """Every hook, and a state."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, trainer: fc.Trainer) -> None:
        self.calls.append("start")

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        assert loss.ndim == 0
        self.calls.append("step")

    def on_evaluation(self, trainer: fc.Trainer, evaluation: fc.Evaluation) -> None:
        assert evaluation.headline in evaluation
        self.calls.append("evaluation")

    def on_epoch(self, trainer: fc.Trainer, record: dict[str, float]) -> None:
        assert record["epoch"] == trainer.epoch
        assert record["mean"] >= 0
        self.calls.append("epoch")

    def on_checkpoint(self, trainer: fc.Trainer, path: Path) -> None:
        assert path.exists()
        self.calls.append("checkpoint")

    def on_end(self, trainer: fc.Trainer, run: fc.Run) -> None:
        self.calls.append("end")

    def state_dict(self) -> list[str]:
        return list(self.calls)

    def load_state_dict(self, state: list[str]) -> None:
        self.calls = list(state)


def test_every_hook_is_called_in_its_place_and_states_survive(tmp_path: Path) -> None:
    data, folder = Toy(tmp_path), tmp_path / "run"
    journal = Journal()
    config = replace(CONFIG, epochs=2)
    fit(tmp_path, config, validation=data, workdir=folder, callbacks=[journal])
    epoch = ["step", "step", "evaluation", "epoch", "checkpoint"]
    assert journal.calls == ["start", *epoch, *epoch, "end"]
    later = Journal()
    fit(tmp_path, config, validation=data, workdir=folder, callbacks=[later])
    # The state is that of the last checkpoint, before its own hook.
    assert later.calls == [*journal.calls[:-2], "start", "end"]
    with pytest.raises(ValueError, match="written with 1 callbacks, now there are 0"):
        fit(tmp_path, config, validation=data, workdir=folder)


def test_a_hook_that_is_none_is_named(tmp_path: Path) -> None:
    class Mistyped:
        def on_epochs(self) -> None: ...

    with pytest.raises(TypeError, match=r"Mistyped has unknown hooks \['on_epochs'\]; valid: on_"):
        fit(tmp_path, CONFIG, callbacks=[Mistyped()])
    with pytest.raises(TypeError, match="callback object has no hook; valid: on_start"):
        fit(tmp_path, CONFIG, callbacks=[object()])
    with pytest.raises(TypeError, match="callback Journal is a class: pass an instance"):
        fit(tmp_path, CONFIG, callbacks=[Journal])


def test_callbacks_may_come_from_a_generator(tmp_path: Path) -> None:
    journal = Journal()
    config = replace(CONFIG, epochs=1)
    fit(tmp_path, config, validation=Toy(tmp_path), callbacks=(c for c in [journal]))
    assert journal.calls == ["start", "step", "step", "evaluation", "epoch", "end"]


def test_the_log_has_a_line_for_each_epoch(tmp_path: Path) -> None:
    run = fit(tmp_path, CONFIG, workdir=tmp_path / "run")
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(run.history)
    assert all(record["gradient_norm"] > 0 for record in run.history)


# Compiled, deterministic


# Dynamo looks at the .grad of what is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_steps_equal_plain_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    real = torch.compile

    def compile_eagerly(part: Any) -> Any:
        compiled.append(part)
        return real(part, backend="aot_eager")

    monkeypatch.setattr("torch.compile", compile_eagerly)
    torch._dynamo.reset()
    plain = fit(tmp_path, CONFIG)
    other = fit(tmp_path, replace(CONFIG, compile=True))
    assert [type(part).__name__ for part in compiled] == ["Combiner", "InfoNCE"]
    assert isinstance(other.model.fusion, fc.Combiner)
    for name, weight in weights(other.model).items():
        torch.testing.assert_close(weight, weights(plain.model)[name])


def test_deterministic_algorithms_are_on_during_the_run_alone(tmp_path: Path) -> None:
    states = []

    class Watch:
        def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
            states.append(torch.are_deterministic_algorithms_enabled())

    fit(tmp_path, replace(CONFIG, epochs=1, deterministic=True), callbacks=[Watch()])
    fit(tmp_path, replace(CONFIG, epochs=1), callbacks=[Watch()])
    assert states == [True, True, False, False]
    assert not torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        fit(tmp_path, replace(CONFIG, epochs=1, deterministic=True))
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)

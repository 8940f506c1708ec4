"""What is not finite changes nothing."""

import copy
import math
from contextlib import nullcontext
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from eight_steps import CONFIG, composed
from torch import Tensor, nn
from toy import DIM, NormedSum, Toy, assert_same, encoder, first_epoch, weights

import fusecomp as fc
from fusecomp.losses import Queue
from fusecomp.training import NonFiniteError, batches
from fusecomp.training._progress import Outcome


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
    config = replace(CONFIG, on_nonfinite="skip")
    states: list[dict[str, Tensor]] = []

    class Watch:
        def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
            states.append(weights(trainer.model))

    run = fc.Trainer(composed(), loss=Sometimes(3), config=config, callbacks=[Watch()]).fit(data)
    same = [all(torch.equal(a[n], b[n]) for n in a) for a, b in pairwise(states)]
    assert same == [False, False, True, False, False, False, False]
    assert [record.get("skipped", 0) for record in run.history] == [0, 1, 0, 0]
    with pytest.raises(NonFiniteError, match="each of the 2 steps of an epoch was left out"):
        fc.Trainer(composed(), loss=Sometimes(*range(9)), config=config).fit(data)
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        fc.Trainer(composed(), loss=Sometimes(3), config=CONFIG).fit(data)


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_broken_batch_leaves_batchnorm_as_it_was(tmp_path: Path, nonfinite: str) -> None:
    model = fc.ComposedEncoder(encoder(), NormedSum())
    config = replace(CONFIG, on_nonfinite=nonfinite, cache=False)
    trainer = fc.Trainer(model, loss=fc.InfoNCE(), config=config)
    data = Toy(tmp_path)
    prepared = trainer.prepare(data)
    made = batches(data, prepared, config, epoch=0)
    trainer.step(next(made))
    before = copy.deepcopy(model.state_dict())
    broken = next(made)
    broken.reference[1] = torch.nan
    with pytest.raises(NonFiniteError) if nonfinite == "raise" else nullcontext():
        trainer.step(broken)
    assert_same(dict(before), dict(model.state_dict()))
    trainer.step(next(batches(data, prepared, config, epoch=1)))
    assert before["fusion.norm.num_batches_tracked"] == 1
    assert model.state_dict()["fusion.norm.num_batches_tracked"] == 2


def test_an_epoch_in_which_the_scale_of_fp16_was_found_goes_on(tmp_path: Path) -> None:
    """As on a GPU, whose first steps may all overflow; stood for by a scaler that says so."""
    trainer = fc.Trainer(composed(), loss=fc.InfoNCE(), config=replace(CONFIG, epochs=2))
    real, calls = trainer._step, count()

    class Overflowing:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        scaler = SimpleNamespace(is_enabled=lambda: True, state_dict=dict)

        def __call__(self, *arguments: Any) -> Outcome:
            done = real(*arguments)
            return done._replace(gradient_norm=math.inf) if next(calls) < 2 else done

    trainer._step = Overflowing()  # type: ignore[assignment]
    first, second = trainer.fit(Toy(tmp_path)).history
    assert first["skipped"] == 2
    assert "loss" not in first
    assert second["loss"] > 0


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("broken", ["feature", "loss"])
def test_a_broken_step_leaves_everything_as_it_is(
    tmp_path: Path, nonfinite: str, precision: str, broken: str
) -> None:
    """To the bit: weights, the optimiser's state, the average; clipping would spread NaN."""
    config = replace(CONFIG, precision=precision, max_grad_norm=0.5, ema_decay=0.9, cache=False)
    loss = Sometimes(1 if broken == "loss" else 99)
    data = Toy(tmp_path)
    trainer = fc.Trainer(composed(), loss=loss, config=replace(config, on_nonfinite=nonfinite))
    batch = next(first_epoch(trainer, data))
    trainer.step(batch)  # so that the optimiser has a state

    def state() -> dict[str, Any]:
        assert trainer._average is not None
        optimizer, average = trainer.optimizer.state_dict(), trainer._average.state_dict()
        return copy.deepcopy(
            {"weights": weights(trainer.model), "optimizer": optimizer, "average": average}
        )

    before = state()
    assert len(before["optimizer"]["state"]) == len(
        list(trainer.model.get_submodule("fusion").parameters())
    )
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
    trainer = fc.Trainer(composed(), loss=loss, config=replace(CONFIG, cache=False))
    batch = next(first_epoch(trainer, Toy(tmp_path)))
    batch.target[2] = torch.nan
    with pytest.raises(NonFiniteError, match=batch.query_ids[2]):
        trainer.step(batch)
    assert not loss.seen.any()


class Endless(torch.autograd.Function):
    """Passes a value on, and gives NaN for its gradient where asked to."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, broken: bool) -> Tensor:
        ctx.broken = broken
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * (torch.nan if ctx.broken else 1.0), None


class Late(nn.Module):
    """Holds nothing before the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", None)


class Remembering(nn.Module):
    """A queue, a mean that is a new tensor in each step, and a buffer that begins as None.

    A step may have broken gradients.
    """

    mean: Tensor

    def __init__(self, broken: int, size: int = 20) -> None:
        super().__init__()
        self.loss = fc.InfoNCE(0.1, memory=Queue(size, DIM))
        self.register_buffer("mean", torch.zeros(DIM))
        self.last = Late()
        self.broken = broken
        self.calls = 0

    def forward(self, query: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * target.detach().mean(0)
        self.last.value = target.detach().sum(0)
        value: Tensor = self.loss(query, target)
        passed: Tensor = Endless.apply(value, self.calls == self.broken)  # type: ignore[no-untyped-call]
        return passed


def test_a_loss_forgets_a_step_that_fails(tmp_path: Path) -> None:
    class WithoutGradient(Remembering):
        def forward(self, query: Tensor, target: Tensor) -> Tensor:
            return super().forward(query, target).detach()

    loss = WithoutGradient(broken=0)
    trainer = fc.Trainer(composed(), loss=loss, config=CONFIG)
    batch = next(first_epoch(trainer, Toy(tmp_path)))
    before = copy.deepcopy(loss.state_dict())
    with pytest.raises(ValueError, match="the loss has no gradient"):
        trainer.step(batch)
    assert loss.last.value is None
    assert_same(before, dict(loss.state_dict()))


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_loss_forgets_a_step_whose_gradients_are_broken(tmp_path: Path, nonfinite: str) -> None:
    config = replace(CONFIG, on_nonfinite=nonfinite)
    states = []
    for broken in (2, 0):
        loss = Remembering(broken)
        trainer = fc.Trainer(composed(), loss=loss, config=config)
        first, second = first_epoch(trainer, Toy(tmp_path))
        trainer.step(first)
        if broken:
            before = copy.deepcopy(loss.state_dict())
            assert before["loss.memory.pushed"] == len(first)
            with pytest.raises(NonFiniteError) if nonfinite == "raise" else nullcontext():
                trainer.step(second)
            assert_same(before, dict(loss.state_dict()))
            trainer.steps = 1
        trainer.step(second)
        states.append({**weights(trainer.model), **loss.state_dict()})
    assert_same(states[0], states[1])  # as if the broken step had never been

"""Many processes take the steps of one: gradients, shares of a batch, starting weights, noise."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import CONFIG, LOSSES, all_weights, composed, furthest, trained
from processes import Processes
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from toy import Toy, first_epoch

import fusecomp as fc
from fusecomp import distributed
from fusecomp.losses import LearnableTemperature


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_many_processes_give_the_gradient_of_one(
    tmp_path: Path, two: Processes, three: Processes, loss: str, micro_batch: int | None
) -> None:
    one = trained(tmp_path, CONFIG, loss)
    config = replace(CONFIG, micro_batch_size=micro_batch)
    for processes in (two, three):
        for weights in processes.run(trained, tmp_path, config, loss):
            assert furthest(one, weights) < 1e-10


def trained_wrongly(root: Path, how: str) -> dict[str, Tensor]:
    """With a mistake of published code: no gradient through the gather, or a sum for the mean."""
    with pytest.MonkeyPatch.context() as patch:
        if how == "gather":
            patch.setattr("fusecomp.training._step.gather", _gather_without_gradient)
        else:
            patch.setattr("fusecomp.training._step.average_gradients", lambda _: None)
        config = replace(CONFIG, optimizer="sgd", epochs=1)
        return trained(root, config, "InfoNCE")


def _gather_without_gradient(rows: Tensor) -> Tensor:
    gathered = distributed.gather(rows.detach())
    parts = distributed.gather_objects(rows.detach())
    start = sum(len(part) for part in parts[: distributed.get_rank()])
    if rows.is_floating_point():
        gathered[start : start + len(rows)] = rows
    return gathered


@pytest.mark.parametrize("how", ["gather", "average"])
def test_mistakes_of_published_code_would_be_found(
    tmp_path: Path, two: Processes, how: str
) -> None:
    one = trained(tmp_path, replace(CONFIG, optimizer="sgd", epochs=1), "InfoNCE")
    weights = two.run(trained_wrongly, tmp_path, how)
    assert max(furthest(one, own) for own in weights) > 1e-6


def one_step(root: Path, shares: list[list[int]]) -> tuple[float, dict[str, Tensor]]:
    """One step of an own loop on this process's share of the rows."""
    model = composed()
    trainer = fc.Trainer(model, loss=fc.InfoNCE(0.1), config=replace(CONFIG, batch_size=16))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusecomp.training._batches.get_world_size", lambda: 1)
        patch.setattr("fusecomp.training._batches.get_rank", lambda: 0)
        (batch,) = first_epoch(trainer, Toy(root, rows=16))
    own = shares[distributed.get_rank()]
    loss = trainer.step(batch.rows(own[0], own[-1] + 1))
    return loss.item(), all_weights(model, None)


def test_shares_may_be_as_uneven_as_they_like(tmp_path: Path, two: Processes) -> None:
    rows = list(range(16))
    loss, weights = one_step(tmp_path, [rows])
    for shares in ([rows[:10], rows[10:]], [rows[:1], rows[1:]]):
        for other_loss, other in two.run(one_step, tmp_path, shares):
            assert other_loss == pytest.approx(loss, rel=1e-12)
            assert furthest(weights, other) < 1e-10


GRADIENT_LOSSES: dict[str, Callable[[], Any]] = {
    "one way": lambda: fc.InfoNCE(LearnableTemperature(0.1)),
    "symmetric": lambda: fc.InfoNCE(LearnableTemperature(0.1), symmetric=True),
}


def gradients(
    root: Path, shares: list[int], loss: str, micro_batch: int | None
) -> dict[str, Tensor]:
    """Those of one step on this process's share of the rows, the loss's own too."""
    config = replace(CONFIG, batch_size=sum(shares), micro_batch_size=micro_batch)
    chosen = GRADIENT_LOSSES[loss]().double()
    data = Toy(root, rows=sum(shares))
    trainer = fc.Trainer(composed(), loss=chosen, config=config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusecomp.training._batches.get_world_size", lambda: 1)
        patch.setattr("fusecomp.training._batches.get_rank", lambda: 0)
        (batch,) = first_epoch(trainer, data)
    start = sum(shares[: distributed.get_rank()])
    trainer.step(batch.rows(start, start + shares[distributed.get_rank()]))
    named = (*trainer.model.named_parameters(), *chosen.named_parameters())
    return {name: p.grad for name, p in named if p.grad is not None}


def furthest_gradient(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[n] - other[n]).norm() / one[n].norm()) for n in one)


@pytest.mark.parametrize("loss", GRADIENT_LOSSES)
@pytest.mark.parametrize("micro_batch", [None, 4])
def test_every_gradient_is_that_of_one_process(
    tmp_path: Path, two: Processes, three: Processes, loss: str, micro_batch: int | None
) -> None:
    """To the digits of float64, the temperature's included, for equal and unequal shares."""
    cases = [(two, [16, 16]), (two, [10, 6]), (three, [5, 6, 5]), (three, [10, 4, 2])]
    for processes, shares in cases:
        one = gradients(tmp_path, [sum(shares)], loss, None)
        assert "temperature.log_scale" in one
        assert "encoder.image.0.weight" in one
        for other in processes.run(gradients, tmp_path, shares, loss, micro_batch):
            assert furthest_gradient(one, other) < 1e-12


@pytest.mark.parametrize("train", ["text", "image", "both"])
def test_some_processes_may_have_one_part_and_others_more(
    tmp_path: Path, two: Processes, train: str
) -> None:
    """Shares of 3 and 2 rows, parts of 2: gathers have a backward pass on all, or on none."""
    config = replace(CONFIG, trainable=train, batch_size=5, micro_batch_size=2)
    one = trained(tmp_path, config, "learnable")
    for weights in two.run(trained, tmp_path, config, "learnable"):
        assert furthest(one, weights) < 1e-10


def wrapped(root: Path, config: fc.StageConfig) -> dict[str, Tensor]:
    model = composed()
    parallel = fc.ComposedEncoder(DistributedDataParallel(model.encoder), model.fusion)  # type: ignore[arg-type]
    assert parallel.encoder is model.encoder
    fc.Trainer(parallel, loss=fc.InfoNCE(0.1), config=config).fit(Toy(root, rows=17))
    return all_weights(model, None)


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_an_encoder_in_ddp_is_taken_out_and_synchronised(
    tmp_path: Path, two: Processes, micro_batch: int | None
) -> None:
    one = trained(tmp_path, CONFIG, "InfoNCE")
    for weights in two.run(wrapped, tmp_path, replace(CONFIG, micro_batch_size=micro_batch)):
        assert furthest(one, weights) < 1e-10


def without_gradient(root: Path) -> list[str]:
    """The learning parameters that a step gives no gradient on this process."""
    loss = LOSSES["learnable"]()
    trainer = fc.Trainer(composed(), loss=loss, config=replace(CONFIG, batch_size=24))
    (batch,) = first_epoch(trainer, Toy(root, rows=24))
    trainer.step(batch)
    named = (*trainer.model.named_parameters(), *loss.named_parameters())
    return [name for name, p in named if p.grad is None or not p.grad.any()]


def test_no_tower_stays_untrained_in_silence(tmp_path: Path, two: Processes) -> None:
    assert two.run(without_gradient, tmp_path) == [[], []]


def with_noise(root: Path) -> tuple[list[float], list[Tensor]]:
    """A loss that draws random numbers; and where dropout of the encoder was, step by step."""
    losses: list[float] = []
    dropped: list[Tensor] = []

    def noisy(query: Tensor, target: Tensor) -> Tensor:
        return (query * torch.rand(len(query), 1, dtype=query.dtype) - target).square().mean()

    class Watch:
        def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
            losses.append(loss.item())

    model = composed(dropout=0.5)
    dropout = model.get_submodule("encoder.image.1")
    dropout.register_forward_hook(lambda module, given, out: dropped.append(out == 0))
    config = replace(CONFIG, trainable="both", encoder_mode="train", batch_size=8, epochs=1)
    fc.Trainer(model, loss=noisy, config=config, callbacks=[Watch()]).fit(Toy(root, rows=16))
    return losses, dropped


def test_a_random_loss_is_one_on_all_processes_and_dropout_is_not(
    tmp_path: Path, two: Processes
) -> None:
    first, second = two.run(with_noise, tmp_path)
    assert first[0] == second[0]
    assert len(set(first[0])) == 2
    assert all(mask.any() for mask in (*first[1], *second[1]))
    for mine, theirs in zip(first[1], second[1], strict=True):
        assert not torch.equal(mine, theirs)


def from_other_seeds(root: Path) -> dict[str, Tensor]:
    model = composed()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(distributed.get_rank())
    fc.Trainer(model, loss=fc.InfoNCE(0.1), config=CONFIG).fit(Toy(root, rows=17))
    return all_weights(model, None)


def test_the_first_process_s_weights_are_where_all_begin(tmp_path: Path, two: Processes) -> None:
    one = trained(tmp_path, CONFIG, "InfoNCE")
    for weights in two.run(from_other_seeds, tmp_path):
        assert furthest(one, weights) < 1e-10

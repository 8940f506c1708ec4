"""An encoder that FSDP2 has sharded over the processes learns as a whole one does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import CONFIG, composed, furthest, load_wide
from processes import Processes
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from toy import DIM, Toy, WordText, first_epoch

import fusecomp as fc
from fusecomp import distributed

OPTIONS = replace(
    CONFIG,
    ema_decay=0.9,
    max_grad_norm=0.5,
    lr_schedule="cosine",
    encoder_mode="train",
    save_every_steps=1,
    metric="mean",
)


class Stop(Exception):
    """An interruption."""


class StopAt:
    """Interrupts training after so many steps."""

    def __init__(self, steps: int | None) -> None:
        self.steps = steps

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        if trainer.steps == self.steps:
            raise Stop

    def on_epoch(self, trainer: fc.Trainer, record: Any) -> None:
        """The state of the callback must not differ."""


def shard(model: fc.ComposedEncoder) -> fc.ComposedEncoder:
    """As one would: the towers, then the encoder."""
    encoder: Any = model.encoder
    fully_shard(encoder.image)
    fully_shard(encoder)
    return model


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: distributed.whole(p.detach()) for name, p in model.named_parameters()}


def trained(
    root: Path,
    sharded: bool,
    config: fc.StageConfig,
    workdir: Path | None = None,
    stop: int | None = None,
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """All weights after two epochs of a full and an uneven batch, and the history."""
    data, model = Toy(root, rows=17), composed()
    if sharded:
        shard(model)
    history: list[dict[str, float]] = []
    try:
        run = fc.Trainer(
            model, loss=fc.InfoNCE(0.1), config=config, workdir=workdir, callbacks=[StopAt(stop)]
        ).fit(data, data)
        history = [dict(record) for record in run.history]
    except Stop:
        assert stop is not None
    if sharded:
        kinds = {type(p).__name__ for p in model.get_submodule("encoder").parameters()}
        assert kinds == {DTensor.__name__}
    return whole_weights(model), history


@pytest.mark.parametrize(
    "change",
    [
        {},
        # Shares of 5 and 5, then 4 and 3 rows: unequal numbers of parts.
        {"micro_batch_size": 3},
        {"micro_batch_size": 1},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "micro_batch_size": 2},
        {"trainable": "text"},
        {"trainable": "text", "cache": False},
        {"optimizer": "sgd", "lr": 0.1},
    ],
    ids=str,
)
def test_a_sharded_encoder_learns_as_a_whole_one(
    tmp_path: Path, two: Processes, change: dict[str, Any]
) -> None:
    config = replace(OPTIONS, **change)
    weights, history = trained(tmp_path, False, replace(config, micro_batch_size=None))
    for own, records in two.run(trained, tmp_path, True, config):
        assert furthest(weights, own) < 1e-10
        assert records == [pytest.approx(record, rel=1e-10) for record in history]


def own_loop(root: Path, shares: list[list[int]]) -> dict[str, Tensor]:
    """One step on a share whose number of parts is this process's own."""
    model = shard(composed())
    config = replace(CONFIG, batch_size=16, micro_batch_size=4)
    trainer = fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusecomp.training._batches.get_world_size", lambda: 1)
        patch.setattr("fusecomp.training._batches.get_rank", lambda: 0)
        (batch,) = first_epoch(trainer, Toy(root, rows=16))
    own = shares[distributed.get_rank()]
    trainer.step(batch.rows(own[0], own[-1] + 1))
    return whole_weights(model)


def test_unequal_numbers_of_parts_neither_hang_nor_err(tmp_path: Path, two: Processes) -> None:
    rows = list(range(16))
    even = two.run(own_loop, tmp_path, [rows[:8], rows[8:]])[0]
    for weights in two.run(own_loop, tmp_path, [rows[:1], rows[1:]]):
        assert furthest(even, weights) < 1e-10


@pytest.mark.parametrize("then", ["sharded", "whole", "alone"])
def test_a_sharded_run_resumes(tmp_path: Path, two: Processes, then: str) -> None:
    """Also without sharding, and on one process; to the bit if nothing has changed."""
    straight = two.run(trained, tmp_path, True, OPTIONS)[0]
    two.run(trained, tmp_path, True, OPTIONS, tmp_path / "run", 3)
    if then == "alone":
        resumed = trained(tmp_path, False, OPTIONS, tmp_path / "run")
    else:
        resumed = two.run(trained, tmp_path, then == "sharded", OPTIONS, tmp_path / "run")[0]
    assert furthest(straight[0], resumed[0]) < (1e-10 if then != "sharded" else 1e-300)
    assert resumed[1] == [pytest.approx(record, rel=1e-10) for record in straight[1]]


def test_a_whole_run_goes_on_sharded(tmp_path: Path, two: Processes) -> None:
    straight = trained(tmp_path, False, OPTIONS)
    trained(tmp_path, False, OPTIONS, tmp_path / "run", 3)
    for weights, _ in two.run(trained, tmp_path, True, OPTIONS, tmp_path / "run"):
        assert furthest(straight[0], weights) < 1e-10


def saved_and_loaded(path: Path) -> tuple[dict[str, Tensor], Tensor]:
    model = shard(composed())
    model.save(path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    again = fc.ComposedEncoder.load(path, model.encoder, model.fusion)
    # A query after a query: the weights must be gathered anew each time.
    queries = [
        again.encode_query(torch.ones(2, 4).double(), ["word 1", "word 2"]) for _ in range(2)
    ]
    assert torch.equal(*queries)
    return whole_weights(again), queries[0]


def test_a_sharded_model_is_saved_and_loaded_whole(tmp_path: Path, two: Processes) -> None:
    model, path = composed(), tmp_path / "model"
    query = model.encode_query(torch.ones(2, 4).double(), ["word 1", "word 2"])
    for weights, own in two.run(saved_and_loaded, path):
        assert furthest(whole_weights(model), weights) == 0
        torch.testing.assert_close(own, query)
    alone = fc.ComposedEncoder.load(path, composed().encoder, composed().fusion)
    assert furthest(whole_weights(model), whole_weights(alone)) == 0


def evaluated(root: Path) -> tuple[float, float, str]:
    """Before training; the own weights, changed meanwhile, are never taken for the gathered."""
    data, model = Toy(root, rows=17), shard(composed())
    key = model.encoder.fingerprint()  # type: ignore[attr-defined]
    before = fc.evaluate(model, data)["mean"]
    fc.Trainer(model, loss=fc.InfoNCE(0.1), config=CONFIG).fit(data, data)
    return before, fc.evaluate(model, data)["mean"], key


def test_it_is_evaluated_before_and_after(tmp_path: Path, two: Processes) -> None:
    data, model = Toy(tmp_path, rows=17), composed()
    key = model.encoder.fingerprint()  # type: ignore[attr-defined]
    before = fc.evaluate(model, data)["mean"]
    fc.Trainer(model, loss=fc.InfoNCE(0.1), config=CONFIG).fit(data, data)
    after = fc.evaluate(model, data)["mean"]
    assert before != after
    assert two.run(evaluated, tmp_path) == [(before, after, key)] * 2


def refused(root: Path) -> list[str]:
    data, messages = Toy(root), []
    whole: Any = composed()
    fully_shard(whole)
    with pytest.raises(ValueError) as caught:
        fc.Trainer(whole, loss=fc.InfoNCE(), config=CONFIG)
    messages.append(str(caught.value))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError) as caught:
        patch.setattr("fusecomp.training._trainer.autocast", lambda *_: None)  # as on a GPU
        fc.Trainer(shard(composed()), loss=fc.InfoNCE(), config=replace(CONFIG, precision="fp16"))
    messages.append(str(caught.value))
    headed = fc.DualEncoder(
        nn.Linear(4, 5), WordText(), load_wide, image_dim=5, text_dim=DIM, dim=DIM
    ).double()
    model = shard(fc.ComposedEncoder(headed, fc.Combiner(DIM).double()))
    trainer = fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, trainable="text"))
    with pytest.raises(ValueError) as caught:
        trainer.prepare(data)
    messages.append(str(caught.value))
    return messages


def test_what_cannot_be_done_is_refused(tmp_path: Path, two: Processes) -> None:
    for messages in two.run(refused, tmp_path):
        assert "call it on the encoder" in messages[0]
        assert "use 'bf16'" in messages[1]
        assert "StageConfig(cache=False)" in messages[2]

"""What a stage is told, and what it refuses."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from eight_steps import CONFIG, composed, fit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy import DIM, Toy, encoder, first_epoch, weights

import fusecomp as fc
from fusecomp.losses import Queue


def test_layers_with_sparse_gradients_are_named(tmp_path: Path) -> None:
    sparse = encoder()
    sparse.text.embedding = nn.Embedding(5, DIM, sparse=True)  # type: ignore[attr-defined]
    model = fc.ComposedEncoder(sparse, fc.Combiner(DIM))
    with pytest.raises(ValueError, match=r"encoder\.text\.embedding has sparse gradients"):
        fc.Trainer(model, loss=fc.InfoNCE(), config=replace(CONFIG, trainable="text"))
    fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG)


def test_a_queue_is_filled_whatever_mode_the_loss_was_in(tmp_path: Path) -> None:
    loss = fc.InfoNCE(0.1, memory=Queue(8, DIM)).eval()
    fc.Trainer(composed(), loss=loss, config=replace(CONFIG, epochs=1)).fit(Toy(tmp_path))
    assert isinstance(loss.memory, Queue)
    assert loss.memory.pushed == 10
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
        fc.Trainer(composed(), loss=loss, config=CONFIG).fit(Toy(tmp_path))


# Zero is a value, and no other word for None


ZEROS: dict[str, Any] = {
    "lr": 0.0,
    "lr_overrides": {"fusion.*": 0.0},
    "weight_decay": 0.0,
    "ema_decay": 0.0,
    "warmup_steps": 0,
    "num_workers": 0,
    "seed": 0,
}


@settings(max_examples=15)
@given(st.sets(st.sampled_from(sorted(ZEROS))), st.sampled_from(["adam", "adamw", "sgd"]))
def test_zeros_do_what_zero_means(names: set[str], optimizer: str) -> None:
    root = Path(tempfile.mkdtemp())
    zeros = {name: ZEROS[name] for name in names}
    plain = {"epochs": 1, "optimizer": optimizer, "weight_decay": 0.5, "ema_decay": 0.6, "seed": 3}
    config = replace(CONFIG, **{**plain, **zeros})
    model = composed()
    before = weights(model)
    trainer = fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config)
    decays = {group["weight_decay"] for group in trainer.optimizer.param_groups}
    assert decays == ({0.0} if "weight_decay" in names else {0.0, 0.5})
    for batch in first_epoch(trainer, Toy(root)):
        trainer.step(batch)
    last, average = weights(model), trainer._average
    assert average is not None
    moves = not names & {"lr", "lr_overrides"}
    assert any(not torch.equal(last[name], before[name]) for name in last) is moves
    # An average that forgets everything is the last weights.
    same = all(torch.equal(value, last[name]) for name, value in average.state_dict().items())
    assert same is ("ema_decay" in names or not moves)


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

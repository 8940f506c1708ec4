"""Half precision and GPUs: close to float32 on a CPU, and the loss always in float32."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy import CONFIG, DIM, Toy, changed, composed, encoder, first_epoch, weights

import fusecomp as fc
from fusecomp.training import batches


def test_bf16_is_close_to_fp32_and_not_the_same(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, lr=1e-3)
    losses = [
        fc.Trainer(composed(), loss=fc.InfoNCE(), config=replace(config, precision=precision))
        .fit(Toy(tmp_path))
        .metrics["loss"]
        for precision in ("fp32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_on_a_gpu_is_close_to_fp32_and_not_the_same(
    tmp_path: Path, cuda: torch.device, precision: str
) -> None:
    first = []
    for chosen in ("fp32", precision):
        model = composed().to(cuda)
        config = replace(CONFIG, epochs=5, lr=1e-3, precision=chosen)
        trainer = fc.Trainer(model, loss=fc.InfoNCE(), config=config)
        before, losses = weights(model), []
        data = Toy(tmp_path)
        prepared = trainer.prepare(data)
        # Several steps: the scaler of fp16 leaves the first ones out, until its scale fits.
        for epoch in range(config.epochs):
            for batch in batches(data, prepared, config, epoch):
                losses.append(trainer.step(batch))
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses)
        assert {name.split(".")[0] for name in changed(before, weights(model))} == {"fusion"}
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
        first.append(losses[0].item())
    assert first[0] != first[1]
    assert first[0] == pytest.approx(first[1], rel=0.05)


def test_an_fp16_step_that_overflows_is_left_out_and_lowers_the_scale(
    tmp_path: Path, cuda: torch.device
) -> None:
    model = composed().to(cuda)
    before, config = weights(model), replace(CONFIG, precision="fp16")
    # Finite, but not once the scaler has multiplied it.
    trainer = fc.Trainer(model, loss=lambda q, t: 1e35 * fc.InfoNCE()(q, t), config=config)
    scale = trainer._step.scaler.get_scale()
    trainer.step(next(first_epoch(trainer, Toy(tmp_path))))
    assert not changed(before, weights(model))
    assert trainer._step.scaler.get_scale() == scale / 2


def test_a_gpu_trains_as_a_cpu_does(tmp_path: Path, cuda: torch.device) -> None:
    """The order of batches and the random texts do not depend on the device; dropout does."""
    data, models = Toy(tmp_path), [composed(dropout=0.0), composed(dropout=0.0).to(cuda)]
    # Adam would turn rounding noise in tiny gradients into other weights.
    config = replace(CONFIG, optimizer="sgd", trainable=("text", "fusion"))
    runs = [fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config).fit(data) for model in models]
    for name, tensor in weights(models[0]).items():
        torch.testing.assert_close(weights(models[1])[name].cpu(), tensor, rtol=1e-3, atol=1e-4)
    for there, here in zip(runs[1].history, runs[0].history, strict=True):
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-3)


def test_a_step_leaves_the_streams_of_every_gpu_alone(tmp_path: Path, cuda: torch.device) -> None:
    data = Toy(tmp_path)
    last = torch.device("cuda", torch.cuda.device_count() - 1)  # the current one, if it is alone
    devices = {cuda, last}
    trainer = fc.Trainer(composed().to(last), loss=fc.InfoNCE(), config=CONFIG)
    batch = next(first_epoch(trainer, data))
    before = [torch.cuda.get_rng_state(device) for device in devices]
    trainer.step(batch)
    after = [torch.cuda.get_rng_state(device) for device in devices]
    assert all(map(torch.equal, before, after))


class Pair(nn.Module):
    """A fusion that ends in a linear layer, whose result autocast makes bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2 * DIM, DIM)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        fused: Tensor = self.layer(torch.cat((image, text), dim=-1))
        return fused


def test_the_loss_sees_float32_outside_autocast(tmp_path: Path) -> None:
    def loss(query: Tensor, target: Tensor) -> Tensor:
        assert query.dtype == target.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        scalar: Tensor = fc.InfoNCE()(query, target)
        return scalar

    for fusion in (fc.Combiner(DIM), Pair()):
        model = fc.ComposedEncoder(encoder(), fusion)
        fc.Trainer(model, loss=loss, config=replace(CONFIG, precision="bf16")).fit(Toy(tmp_path))


def test_fp16_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a GPU"):
        fc.Trainer(composed(), loss=fc.InfoNCE(), config=replace(CONFIG, precision="fp16"))

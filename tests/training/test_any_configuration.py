"""Whatever is combined, a training is that of float64, on one process, written out."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from any_stage import any_stage
from exact import LOSSES, Scaled, composed
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from processes import Processes
from torch import Tensor, nn
from toy import Toy, load

import fusecomp as fc
from fusecomp.training import batches
from fusecomp.types import Batch

pytestmark = pytest.mark.heavy
# The largest error of the change of the weights, relative to the change.
TOLERANCE = {"fp64": 1e-10, "fp32": 2e-4, "bf16": 0.1}


@dataclass(frozen=True)
class Case:
    """A training: settings, loss, precision, rows, processes."""

    config: fc.StageConfig
    loss: str
    precision: str
    rows: int
    count: int


@st.composite
def cases(draw: Any) -> Case:
    size = draw(st.integers(3, 12))
    config = fc.StageConfig(epochs=1, lr=0.05, optimizer="sgd", **draw(any_stage(size)))
    rows, count = draw(st.integers(size, 3 * size)), draw(st.integers(1, 3))
    # A smaller last batch joins the one before, on as many processes.
    assume(config.drop_last or rows % size == 0 or rows % size >= max(2, count))
    loss = draw(st.sampled_from(sorted(LOSSES)))
    precision = draw(st.sampled_from(sorted(TOLERANCE)))
    return Case(config, loss, precision, rows, count)


def trained(root: Path, case: Case) -> dict[str, Tensor]:
    """By the library, on as many processes as run this."""
    model, loss = composed(), LOSSES[case.loss]()
    config = replace(case.config, precision="bf16" if case.precision == "bf16" else "fp32")
    if case.precision != "fp64":
        model.float()
        model.encoder.load_image = load  # type: ignore[attr-defined]
        loss = loss.float() if isinstance(loss, nn.Module) else loss
    fc.Trainer(model, loss=loss, config=config).fit(Toy(root, rows=case.rows))
    return all_weights(model, loss)


def all_weights(model: nn.Module, loss: Any) -> dict[str, Tensor]:
    own = loss.named_parameters() if isinstance(loss, nn.Module) else ()
    return {name: p.detach().double() for name, p in (*model.named_parameters(), *own)}


def brute_force(loss: Any, query: Tensor, target: Tensor, image: Tensor, batch: Batch) -> Tensor:
    """Each of the losses, from its formula."""
    ids = batch.target_ids
    if not isinstance(loss, nn.Module):
        return ((query - target) ** 2).sum() / len(query)
    learnable = isinstance(loss, Scaled)
    scale: Any = loss.scale if learnable else 1 / loss.temperature  # type: ignore[operator]
    rows = []
    for i in range(len(query)):
        scores = [
            scale * (query[i] / query[i].norm()) @ (target[j] / target[j].norm())
            for j in range(len(query))
            if not learnable or i == j or ids[i] != ids[j]
        ]
        scores += [
            scale * (query[i] / query[i].norm()) @ (image[j] / image[j].norm())
            for j in range(len(query))
            if isinstance(loss, fc.InfoNCE) and loss.include_references
            if batch.reference_ids[j] not in ids
        ]
        own = scale * (query[i] / query[i].norm()) @ (target[i] / target[i].norm())
        rows.append(torch.stack(scores).exp().sum().log() - own)
    return torch.stack(rows).mean()


def written_out(root: Path, case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All weights before and after."""
    model, loss, data = composed(), LOSSES[case.loss](), Toy(root, rows=case.rows)
    names = fc.Trainer(model, loss=loss, config=case.config)._stage.learning
    learning = [p for name, p in model.named_parameters() if name in names]
    learning += list(loss.parameters()) if isinstance(loss, nn.Module) else []
    before = {name: value.clone() for name, value in all_weights(model, loss).items()}
    encoder = model.encoder
    for batch in batches(data, encoder, case.config, epoch=0):
        image, text = encoder.encode_image(batch.reference), encoder.encode_text(batch.texts)
        query, target = model.compose(image, text), encoder.encode_image(batch.target)
        gradients = torch.autograd.grad(
            brute_force(loss, query, target, image, batch), learning, allow_unused=True
        )
        pairs = [(p, g) for p, g in zip(learning, gradients, strict=True) if g is not None]
        norm = torch.cat([g.flatten() for _, g in pairs]).norm()
        shrink = min(1.0, (case.config.max_grad_norm or torch.inf) / (norm.item() + 1e-6))
        for parameter, gradient in pairs:
            parameter.data -= case.config.lr * shrink * gradient
    return before, all_weights(model, loss)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_any_configuration_is_that_of_float64_written_out(
    two: Processes, three: Processes, case: Case
) -> None:
    root = Path(tempfile.mkdtemp())
    before, expected = written_out(root, case)
    change = torch.cat([(expected[name] - before[name]).flatten() for name in before])
    if case.count == 1:
        results = [trained(root, case)]
    else:
        results = (two if case.count == 2 else three).run(trained, root, case)
    for weights in results:
        error = torch.cat([(weights[name] - expected[name]).flatten() for name in before])
        assert error.norm() <= TOLERANCE[case.precision] * change.norm()

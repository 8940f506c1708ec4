"""Whatever is combined, a training that was stopped anywhere equals one that never was, to the bit.

``FUSECOMP_EXAMPLES=200 python -m pytest -m heavy tests/training/test_any_resume.py`` tries as many.
"""

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from any_stage import any_stage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import Processes
from stopping import Stop
from torch import Tensor, nn
from toy import DIM, IMAGES, Toy, WordText, assert_same, load

import fusecomp as fc
from fusecomp._core.files import read_tensors

pytestmark = pytest.mark.heavy
EXAMPLES = int(os.environ.get("FUSECOMP_EXAMPLES", "10"))
LOSSES: dict[str, Any] = {
    "InfoNCE": lambda: fc.InfoNCE(0.1),
    "both ways": lambda: fc.InfoNCE(0.1, symmetric=True),
    "masked": lambda: fc.InfoNCE(0.1, exclude=("target", "reference")),
    "learned scale": lambda: fc.InfoNCE(fc.losses.LearnableTemperature(0.1)),
    "bank": lambda: fc.InfoNCE(
        0.1,
        memory=fc.losses.Bank(
            torch.randn(IMAGES, DIM, generator=torch.Generator().manual_seed(7)),
            torch.arange(IMAGES),
        ),
    ),
    "queue": lambda: fc.InfoNCE(0.1, memory=fc.losses.Queue(8, DIM)),
    "hard negatives": lambda: fc.losses.HardNegativeNCE(0.1),
    "sigmoid": lambda: fc.losses.SigmoidLoss(),
    "several positives": lambda: fc.losses.MultiPositiveNCE(0.1),
    "semi-hard": lambda: fc.losses.TripletMarginLoss(0.2),
    "sum": lambda: fc.losses.CombinedLoss(
        {"a": (0.7, fc.InfoNCE(0.1)), "b": (0.3, fc.losses.CosineAlignmentLoss())}
    ),
    "function": lambda: plain,
}


def plain(query: Tensor, target: Tensor) -> Tensor:
    return (query - target).square().sum(1).mean()


def noisy(path: Path) -> Tensor:
    """An augmentation."""
    return load(path) + torch.randn(4)


@dataclass(frozen=True)
class Case:
    """A training, the steps that it is stopped before, and the number of processes."""

    config: fc.StageConfig
    loss: str
    noisy: bool
    validated: bool
    stops: tuple[int, ...]
    count: int


@st.composite
def cases(draw: Any) -> Case:
    validated = draw(st.booleans())
    config = fc.StageConfig(
        epochs=draw(st.integers(2, 4)),
        lr=0.02,
        optimizer=draw(st.sampled_from(["adam", "adamw", "sgd"])),
        lr_schedule=draw(st.sampled_from(["constant", "cosine", "linear"])),
        warmup_steps=draw(st.sampled_from([0, 3])),
        ema_decay=draw(st.none() | st.just(0.9)),
        metric=draw(st.none() | st.just(("recall@5", "mean"))) if validated else None,
        keep_best=draw(st.integers(1, 2)),
        patience=draw(st.none() | st.integers(1, 2)) if validated else None,
        eval_every_epochs=draw(st.integers(1, 2)),
        save_every_steps=draw(st.none() | st.integers(1, 4)),
        num_workers=0,
        **draw(st.integers(4, 8).flatmap(any_stage)),
    )
    # A bank is refused where images learn.
    names = [name for name in LOSSES if name != "bank" or config.trainable in ("text", "fusion")]
    return Case(
        config,
        draw(st.sampled_from(sorted(names))),
        draw(st.booleans()),
        validated,
        tuple(draw(st.lists(st.integers(1, 8), min_size=1, max_size=2))),
        draw(st.integers(1, 3)),
    )


class StopBefore:
    """Stops a training after so many steps of this process, if it comes to that."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stop


def train(root: Path, case: Case, workdir: Path, stop: int) -> dict[str, Any] | None:
    """What the training gives; None where it was stopped."""
    torch.manual_seed(0)
    image = nn.Sequential(nn.Linear(4, DIM), nn.Dropout(0.3), nn.BatchNorm1d(DIM))
    live = fc.DualEncoder(image, WordText(0.3), noisy if case.noisy else load)
    model = fc.ComposedEncoder(live, fc.Combiner(DIM, dropout=0.3))
    loss, data = LOSSES[case.loss](), Toy(root, rows=17)
    # The same ids as in training, and the same files.
    validation = Toy(root, rows=12, start=5) if case.validated else None
    try:
        run = fc.Trainer(
            model, loss=loss, config=case.config, workdir=workdir, callbacks=[StopBefore(stop)]
        ).fit(data, validation)
    except Stop:
        return None
    state = loss.state_dict() if isinstance(loss, nn.Module) else {}
    return {
        "model": {name: value.clone() for name, value in model.state_dict().items()},
        "loss": {name: value.clone() for name, value in state.items()},
        "metrics": dict(run.metrics),
        "history": [dict(record) for record in run.history],
    }


def on_all(two: Processes, three: Processes, count: int) -> Any:
    if count == 1:
        return lambda function, *arguments: [function(*arguments)]
    return (two if count == 2 else three).run


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(case=cases())
def test_stopped_anywhere_it_goes_on_to_the_same_bits(
    two: Processes, three: Processes, case: Case
) -> None:
    root = Path(tempfile.mkdtemp())
    # BatchNorm needs two rows of each share and part.
    exact = case.config.encoder_mode == "eval" or case.config.trainable == "fusion"
    if not exact and (case.count > 1 or case.config.micro_batch_size is not None):
        case = replace(case, config=replace(case.config, encoder_mode="eval"))
    run = on_all(two, three, case.count)
    straight = run(train, root, case, root / "straight", -1)
    for stop in case.stops:
        run(train, root, case, root / "broken", stop)
    resumed = run(train, root, case, root / "broken", -1)
    assert_same(straight, resumed)
    one, other = (read_tensors(root / name / "last.pt") for name in ("straight", "broken"))
    assert_same(one, other)


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(case=cases())
def test_cached_or_live_it_learns_the_same(two: Processes, three: Processes, case: Case) -> None:
    """Where ``load_image`` draws nothing: features looked up are those that are computed."""
    root = Path(tempfile.mkdtemp())
    config = replace(case.config, encoder_mode="eval", patience=None, save_every_steps=None)
    run = on_all(two, three, case.count)
    results = []
    for cache in (False, True):
        settled = replace(case, noisy=False, config=replace(config, cache=cache))
        results.append(run(train, root, settled, root / str(cache), -1)[0])
    live, cached = (result["history"] for result in results)
    for one, other in zip(live, cached, strict=True):
        torch.testing.assert_close(one["loss"], other["loss"], rtol=1e-3, atol=1e-4)

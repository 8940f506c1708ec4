import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import Stop, StopAt
from torch import Tensor, nn
from toy import (
    CONFIG,
    DIM,
    NormedSum,
    Toy,
    WordText,
    assert_equal_weights,
    assert_same,
    composed,
    encoder,
    load,
)

import fusecomp as fc
from fusecomp._core.files import read_tensors
from fusecomp.training import Run

STEPS = 3  # an epoch of 10 rows in batches of 4


def whole(
    root: Path,
    workdir: Path | None,
    config: fc.StageConfig,
    loss: Any,
    device: str | torch.device = "cpu",
) -> Run:
    data = Toy(root)
    model = (
        composed()
        if "fusion" in config.trainable
        else fc.ComposedEncoder(encoder(dropout=0.5), fc.Sum())
    )
    return fc.Trainer(model.to(device), loss=loss, config=config, workdir=workdir).fit(data, data)


def test_the_scale_of_fp16_is_resumed_too(tmp_path: Path) -> None:
    """On a CPU, with a scaler put in by hand whose scale doubles at each second step."""
    data = Toy(tmp_path)

    def trainer(name: str, loss: Any) -> fc.Trainer:
        made = fc.Trainer(composed(), loss=loss, config=CONFIG, workdir=tmp_path / name)
        made._step.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
        return made

    straight = trainer("straight", StopAt(-1))
    straight.fit(data)
    with pytest.raises(Stop):
        trainer("broken", StopAt(STEPS + 1)).fit(data)
    resumed = trainer("broken", StopAt(-1))
    resumed.fit(data)
    assert resumed._step.scaler.state_dict() == straight._step.scaler.state_dict()
    assert straight._step.scaler.get_scale() > 8


@pytest.mark.parametrize("save_every", [1, 2, None])
@pytest.mark.parametrize("train", ["fusion", "text"])
def test_stopped_anywhere_and_resumed_equals_never_stopped(
    tmp_path: Path, train: str, save_every: int | None
) -> None:
    """Dropout is on; the texts change by epoch; metrics and log count too."""
    mode = "train" if train == "text" else "eval"
    config = replace(CONFIG, trainable=train, save_every_steps=save_every, encoder_mode=mode)
    straight = whole(tmp_path, tmp_path / "straight", config, StopAt(-1))
    for stop in range(STEPS, 2 * STEPS + 1):
        workdir = tmp_path / f"broken-{stop}"
        with pytest.raises(Stop):
            whole(tmp_path, workdir, config, StopAt(stop))
        resumed = whole(tmp_path, workdir, config, StopAt(-1))
        assert_equal_weights(resumed.model, straight.model)
        assert resumed.history == straight.history
        assert resumed.metrics == straight.metrics
        assert_same_files(tmp_path / "straight", workdir)


def assert_same_files(straight: Path, broken: Path) -> None:
    kept = [f"best/{path.name}" for path in (straight / "best").glob("*.pt")]
    assert len(kept) == 1
    for name in ("last.pt", *kept):
        assert_same(read_tensors(straight / name), read_tensors(broken / name), name)
    assert (straight / "log.jsonl").read_text() == (broken / "log.jsonl").read_text()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("train", ["fusion", "text"])
def test_a_run_on_a_gpu_resumes_too(
    tmp_path: Path, cuda: torch.device, train: str, precision: str
) -> None:
    """To the bit where two runs that never stopped are equal to the bit, else closely."""
    mode = "train" if train == "text" else "eval"
    # Adam would turn rounding noise in tiny gradients into other weights.
    config = replace(
        CONFIG, trainable=train, encoder_mode=mode, precision=precision, optimizer="sgd"
    )
    config = replace(config, save_every_steps=1)

    def run(name: str, loss: Any) -> Run:
        return whole(tmp_path, tmp_path / name, config, loss, cuda)

    one, other = (run(name, StopAt(-1)) for name in ("one", "other"))
    with pytest.raises(Stop):
        run("broken", StopAt(STEPS + 1))
    resumed = run("broken", StopAt(-1))
    states = [run.model.state_dict() for run in (one, other, resumed)]
    for name, tensor in states[0].items():
        rtol, atol = (0.0, 0.0) if torch.equal(tensor, states[1][name]) else (1e-3, 1e-4)
        torch.testing.assert_close(states[2][name], tensor, rtol=rtol, atol=atol)
    scales = [read_tensors(tmp_path / name / "last.pt")["scaler"] for name in ("one", "broken")]
    assert scales[0] == scales[1]


@pytest.mark.parametrize(
    ("save_every", "expected"), [(None, [3, 6, 9]), (2, [2, 4, 6, 8, 9]), (1000, [9])]
)
def test_checkpoints_come_when_they_are_due_and_at_the_end(
    tmp_path: Path, save_every: int | None, expected: list[int]
) -> None:
    saved = []

    class Watch:
        def on_checkpoint(self, trainer: fc.Trainer, path: Path) -> None:
            saved.append(read_tensors(path)["steps"])

    config = replace(CONFIG, save_every_steps=save_every)
    data = Toy(tmp_path)
    fc.Trainer(
        composed(), loss=fc.InfoNCE(), config=config, workdir=tmp_path / "run", callbacks=[Watch()]
    ).fit(data, data)
    assert saved == expected


def test_a_workdir_changes_nothing(tmp_path: Path) -> None:
    runs = [whole(tmp_path, w, CONFIG, fc.InfoNCE()) for w in (None, tmp_path / "run")]
    assert_equal_weights(runs[0].model, runs[1].model)
    assert runs[0].history == runs[1].history


def test_a_finished_run_is_loaded_not_repeated(tmp_path: Path) -> None:
    first = whole(tmp_path, tmp_path / "run", CONFIG, fc.InfoNCE())
    again = whole(tmp_path, tmp_path / "run", replace(CONFIG, num_workers=0), fc.InfoNCE())
    assert_equal_weights(first.model, again.model)
    assert first.metrics == again.metrics
    assert again.path == tmp_path / "run"
    with pytest.raises(Stop):  # a new folder does train
        whole(tmp_path, tmp_path / "other", CONFIG, StopAt(0))


def test_the_files_are_for_people_too(tmp_path: Path) -> None:
    run = whole(tmp_path, tmp_path / "run", CONFIG, fc.InfoNCE())
    assert run.path is not None
    config = fc.StageConfig.from_json((run.path / "config.json").read_text())
    assert config == CONFIG
    lines = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert lines == [dict(record) for record in run.history]
    assert not list(run.path.glob(".*"))


def test_batchnorm_and_a_loss_with_weights_resume_too(tmp_path: Path) -> None:
    class Learned(nn.Module):
        def __init__(self, stop: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))
            self.stop = StopAt(stop)

        def forward(self, query: Tensor, target: Tensor) -> Tensor:
            return self.stop(self.weight * query, target) + (self.weight - 2) ** 2

        def extra_repr(self) -> str:
            return "learned"

    def run(workdir: Path, stop: int) -> tuple[Run, Learned]:
        torch.manual_seed(0)
        data, loss = Toy(tmp_path), Learned(stop)
        model = fc.ComposedEncoder(encoder(), NormedSum())
        config = replace(CONFIG, save_every_steps=1)
        return fc.Trainer(model, loss=loss, config=config, workdir=workdir).fit(data, data), loss

    straight, straight_loss = run(tmp_path / "straight", -1)
    with pytest.raises(Stop):
        run(tmp_path / "broken", 5)
    resumed, resumed_loss = run(tmp_path / "broken", -1)
    assert_equal_weights(straight.model, resumed.model)
    assert straight_loss.weight.item() == resumed_loss.weight.item() != 1.0


class Remembering(nn.Module):
    """A learnable scale, a queue of targets, and a NaN in its fourth call."""

    queue: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.register_buffer("queue", torch.zeros(3, DIM))
        # No buffer, which would forget the step that is left out.
        self.calls = torch.tensor(0)

    def get_extra_state(self) -> Tensor:
        return self.calls

    def set_extra_state(self, state: Tensor) -> None:
        self.calls = state.clone()

    def forward(self, query: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        candidates = nn.functional.normalize(torch.cat((target, self.queue)))
        self.queue = torch.cat((target.detach().float(), self.queue))[:3]
        logits = self.scale * query @ candidates.T
        loss = nn.functional.cross_entropy(logits, torch.arange(len(query)))
        return loss * (torch.nan if self.calls == 4 else 1.0)


class Counting:
    """A callback with a state, that may interrupt after a step."""

    def __init__(self, stop: int | None) -> None:
        self.steps = 0
        self.stop = stop

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        self.steps += 1
        if self.steps == self.stop:
            raise Stop

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


# Random ones of them come together in test_any_resume.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"ema_decay": 0.7, "lr_schedule": "cosine", "warmup_steps": 2},
    {"lr_schedule": "linear", "optimizer": "sgd", "micro_batch_size": 2},
    {"optimizer": "adamw", "weight_decay": 0.1, "no_decay": (), "gradient_checkpointing": True},
    {"lr_overrides": {"fusion.*": 0.01}, "max_grad_norm": 0.5, "unique_targets": True},
    {"metric": ("recall@1", "recall@5"), "keep_best": 2, "drop_last": True},
    {"eval_every_epochs": 2, "cache": False, "deterministic": True},
    {"patience": 1, "metric": "recall@1", "precision": "bf16"},
    {"trainable": "text"},
    {"trainable": ("image", "fusion"), "encoder_mode": "eval"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
# Inexact, as it says, but the same again.
@pytest.mark.filterwarnings("ignore:BatchNorm of the encoder learns")
def test_every_option_resumes(tmp_path: Path, options: dict[str, Any]) -> None:
    """With dropout, BatchNorm, and a loss and a callback that have a state of their own."""
    config = replace(
        CONFIG, trainable=("both", "fusion"), encoder_mode="train", on_nonfinite="skip"
    )
    config = replace(config, **options, save_every_steps=2)

    def run(name: str, stop: int | None = None) -> Run:
        torch.manual_seed(0)
        image = nn.Sequential(nn.Linear(4, DIM), nn.BatchNorm1d(DIM))
        live = fc.DualEncoder(image, WordText(dropout=0.5), load)
        model = fc.ComposedEncoder(live, fc.Combiner(DIM, dropout=0.5))
        data, callbacks = Toy(tmp_path), [Counting(stop)]
        return fc.Trainer(
            model, loss=Remembering(), config=config, workdir=tmp_path / name, callbacks=callbacks
        ).fit(data, data)

    straight = run("straight")
    # The second step of the second epoch is lost, the first one, which was skipped, is kept.
    with pytest.raises(Stop):
        run("broken", stop=5)
    resumed = run("broken")
    assert_equal_weights(straight.model, resumed.model)
    assert straight.metrics == resumed.metrics
    one, other = (read_tensors(tmp_path / name / "last.pt") for name in ("straight", "broken"))
    assert_same(one, other)
    assert one["weights"]["loss"]["_extra_state"] == one["steps"] == one["callbacks"][0]["steps"]


# Interrupted while a checkpoint is written.


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    whole(tmp_path, tmp_path / "run", CONFIG, fc.InfoNCE())
    halves = [tmp_path / "run" / name for name in (".last.pt.x.partial", "best/.a.pt.y.partial")]
    for half in halves:
        half.write_bytes(b"half")
    halves.append(tmp_path / "run" / ".model.z.partial")  # of a model that was saved there
    (halves[-1] / "weights").mkdir(parents=True)
    own = [tmp_path / "run" / name for name in ("mine.partial", ".between.x.partial")]
    for path in own:
        path.touch()
    (tmp_path / "run" / ".between.x.old").mkdir()  # killed between two renames: all that is there
    whole(tmp_path, tmp_path / "run", CONFIG, fc.InfoNCE())
    assert not any(half.exists() for half in halves)
    assert all(path.exists() for path in own)


@pytest.mark.parametrize("kind", ["full disk", "ctrl-c"])
def test_interrupted_while_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    straight = whole(tmp_path, tmp_path / "straight", CONFIG, fc.InfoNCE())
    real = torch.save
    for write in range(1, 5):
        left, workdir = [None] * (write - 1), tmp_path / f"run-{write}"

        def failing(content: Any, file: Any, left: list[None] = left) -> None:
            if left:
                left.pop()
                return real(content, file)
            file.write(b"half a checkpoint")
            if kind == "ctrl-c":
                raise KeyboardInterrupt
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(torch, "save", failing)
            expected = KeyboardInterrupt if kind == "ctrl-c" else OSError
            with pytest.raises(expected) as caught:
                whole(tmp_path, workdir, CONFIG, fc.InfoNCE())
        if kind == "full disk":
            assert "No space left" in str(caught.value)
            assert ".pt" in str(caught.value)
        assert not list(workdir.glob(".*partial"))
        resumed = whole(tmp_path, workdir, CONFIG, fc.InfoNCE())
        assert_equal_weights(straight.model, resumed.model)
        assert straight.history == resumed.history


def test_stopped_behind_any_file_the_log_is_whole_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole(tmp_path, tmp_path / "straight", CONFIG, fc.InfoNCE())
    real, files = os.replace, 0
    while True:
        files += 1
        workdir, left = tmp_path / f"run-{files}", [None] * files

        def replacing(source: Any, target: Any, left: list[None] = left) -> None:
            real(source, target)
            left.pop()
            if not left:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", replacing)
            try:
                whole(tmp_path, workdir, CONFIG, fc.InfoNCE())
                break
            except KeyboardInterrupt:
                pass
        whole(tmp_path, workdir, CONFIG, fc.InfoNCE())
        assert_same_files(tmp_path / "straight", workdir)
    assert files > 6

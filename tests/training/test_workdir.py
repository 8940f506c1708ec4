"""A workdir belongs to one run, at one time."""

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import Stop, StopAt
from torch import Tensor, nn
from toy import CONFIG, DIM, NormedSum, Toy, assert_equal_weights, composed, encoder, load

import fusecomp as fc
from fusecomp._core.files import read_tensors, write_tensors
from fusecomp.evaluation import Recall

# More epochs than a run was begun with.


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.9}, {"warmup_steps": 4}])
def test_more_epochs_go_on_where_the_run_ended(
    tmp_path: Path, first: int, more: dict[str, Any]
) -> None:
    data, config = Toy(tmp_path), replace(CONFIG, epochs=5, **more)
    straight = fc.Trainer(
        composed(), loss=fc.InfoNCE(), config=config, workdir=tmp_path / "straight"
    ).fit(data, data)
    fc.Trainer(
        composed(),
        loss=fc.InfoNCE(),
        config=replace(config, epochs=first),
        workdir=tmp_path / "run",
    ).fit(data, data)
    longer = fc.Trainer(composed(), loss=fc.InfoNCE(), config=config, workdir=tmp_path / "run").fit(
        data, data
    )
    assert_equal_weights(straight.model, longer.model)
    assert straight.history == longer.history
    settings = (tmp_path / "run" / "config.json").read_text()
    assert fc.StageConfig.from_json(settings) == config


def test_a_schedule_over_all_epochs_cannot_go_on_for_more(tmp_path: Path) -> None:
    data, config = Toy(tmp_path), replace(CONFIG, lr_schedule="cosine")
    fc.Trainer(composed(), loss=fc.InfoNCE(), config=config, workdir=tmp_path / "run").fit(data)
    with pytest.raises(ValueError, match=r"config.epochs was 3 and is now 4\. Only a constant"):
        fc.Trainer(
            composed(),
            loss=fc.InfoNCE(),
            config=replace(config, epochs=4),
            workdir=tmp_path / "run",
        ).fit(data)


# Another run.


def by_hand(weight: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(query: Tensor, target: Tensor) -> Tensor:
        return weight * (query - target).square().sum()

    return loss


class OwnLoss:
    """A user's own, without a repr."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, query: Tensor, target: Tensor) -> Tensor:
        return self.weight * (query - target).square().sum()


class OwnModule(nn.Module):
    """A user's own module, whose repr does not show its weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self._weight = weight

    def forward(self, query: Tensor, target: Tensor) -> Tensor:
        return self._weight * (query - target).square().sum()


def scaled(scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda image, text: image + scale * text


def fit(root: Path, fusion: Any = None, loss: Any = None, **more: Any) -> fc.Run:
    torch.manual_seed(0)
    live = more.pop("encoder", None) or encoder()
    model = fc.ComposedEncoder(live, fusion or fc.Combiner(DIM))
    config = replace(CONFIG, epochs=1, **more.pop("config", {}))
    data = more.pop("data", None) or Toy(root)
    validation = more.pop("validation", None)
    return fc.Trainer(
        model, loss=loss or fc.InfoNCE(), config=config, workdir=root / "run", **more
    ).fit(data, validation)


TEXT: dict[str, Any] = {"trainable": "text"}
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "loss function's value": ({"loss": by_hand(1)}, {"loss": by_hand(2)}, "loss was"),
    "lambda": (
        {"loss": lambda q, t: (q - t).square().sum()},
        {"loss": lambda q, t: (q - t).abs().sum()},
        "loss was",
    ),
    "own object": ({"loss": OwnLoss(1)}, {"loss": OwnLoss(2)}, "loss was"),
    "own module": ({"loss": OwnModule(1)}, {"loss": OwnModule(2)}, "loss._weight was"),
    "object for function": ({"loss": OwnLoss(1)}, {"loss": by_hand(1)}, "loss was"),
    "fusion's dropout": (
        {"fusion": fc.Combiner(DIM, dropout=0.5)},
        {"fusion": fc.Combiner(DIM, dropout=0.1)},
        r"fusion\.dropout was '0.5'",
    ),
    "fusion's closed-over value": (
        {"fusion": scaled(1), "config": TEXT},
        {"fusion": scaled(2), "config": TEXT},
        "fusion was",
    ),
    "fusion's class": (
        {"fusion": fc.Sum(), "config": TEXT},
        {"fusion": scaled(1), "config": TEXT},
        "fusion was 'Sum'",
    ),
    "weight of a part": (
        {"loss": fc.losses.CombinedLoss({"a": (1.0, fc.InfoNCE())})},
        {"loss": fc.losses.CombinedLoss({"a": (2.0, fc.InfoNCE())})},
        "loss",
    ),
    "margin": (
        {"loss": fc.losses.TripletMarginLoss(0.1)},
        {"loss": fc.losses.TripletMarginLoss(0.2)},
        "loss",
    ),
}


@pytest.mark.parametrize(("first", "second", "named"), PAIRS.values(), ids=PAIRS.keys())
def test_another_part_is_named(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], named: str
) -> None:
    again = copy.deepcopy(first)
    run = fit(tmp_path, **first)
    assert fit(tmp_path, **again).metrics == run.metrics  # the same one is none
    with pytest.raises(ValueError, match=f"belongs to another run: {named}"):
        fit(tmp_path, **second)


def test_another_activation_of_the_encoder_is_named(tmp_path: Path) -> None:
    def made(activation: nn.Module) -> fc.DualEncoder:
        known = encoder()
        return fc.DualEncoder(
            nn.Sequential(nn.Linear(4, DIM), activation), known.text, known.load_image
        )

    fit(tmp_path, encoder=made(nn.ReLU()))
    with pytest.raises(ValueError, match=r"encoder\.image\.1 was 'ReLU' and is now 'GELU'"):
        fit(tmp_path, encoder=made(nn.GELU()))


class OtherGallery(Toy):
    """The same queries in a smaller gallery."""

    def tasks(self) -> list[Any]:
        return [replace(task, metrics=[Recall(1)]) for task in super().tasks()]


def test_another_protocol_of_the_validation_is_named(tmp_path: Path) -> None:
    fit(tmp_path, validation=Toy(tmp_path))
    with pytest.raises(ValueError, match=r"validation\.tasks was"):
        fit(tmp_path, validation=OtherGallery(tmp_path))


def test_other_image_files_are_another_run(tmp_path: Path) -> None:
    fit(tmp_path)
    (tmp_path / "3.png").write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"train\.files was"):
        fit(tmp_path)


class Centred(nn.Module):
    """An image side that takes a mean away, which is a buffer."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.layer = nn.Linear(4, DIM)
        self.mean: Tensor
        self.register_buffer("mean", torch.full((4,), mean))

    def forward(self, images: Tensor) -> Tensor:
        centred: Tensor = self.layer(images - self.mean)
        return centred


def test_another_buffer_of_what_is_frozen_is_another_run(tmp_path: Path) -> None:
    def made(mean: float) -> fc.DualEncoder:
        torch.manual_seed(0)
        return fc.DualEncoder(Centred(mean), encoder().text, load)

    fit(tmp_path, encoder=made(0.0))
    fit(tmp_path, encoder=made(0.0))
    other = made(5.0)
    with pytest.raises(ValueError, match="frozen weights was"):
        fit(tmp_path, encoder=other)
    assert dict(other.named_buffers())["image.mean"].tolist() == [5.0] * 4


def test_compiled_or_not_it_is_the_same_run(tmp_path: Path) -> None:
    def made(compiled: bool) -> fc.DualEncoder:
        known = encoder()
        image: Any = torch.compile(known.image, backend="eager") if compiled else known.image
        return fc.DualEncoder(image, known.text, load)

    first = fit(tmp_path, encoder=made(False))
    assert fit(tmp_path, encoder=made(True)).metrics == first.metrics


def test_one_missing_image_hides_no_other(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    cached = fc.CachedEncoder.build(encoder(), data)
    (tmp_path / "3.png").unlink()
    fit(tmp_path, data=data, encoder=cached)
    (tmp_path / "5.png").write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"train\.files was '0 bytes for image number 5'"):
        fit(tmp_path, data=data, encoder=cached)


def test_images_that_are_gone_count_as_unchanged(tmp_path: Path) -> None:
    first = fit(tmp_path)
    data = Toy(tmp_path)
    (tmp_path / "3.png").unlink()
    with pytest.warns(UserWarning, match=r"train\.files: some images are not there"):
        again = fit(tmp_path, data=data)
    assert first.metrics == again.metrics


def test_a_part_that_tells_nothing_is_refused_with_the_way_out(tmp_path: Path) -> None:
    class Opaque:
        def __call__(self, query: Tensor, target: Tensor) -> Tensor:
            return (query - target).square().sum()

    with pytest.raises(ValueError, match="give it a __repr__"):
        fit(tmp_path, loss=Opaque())


def test_best_weights_of_another_run_are_refused(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    for name, seed in (("run", 0), ("other", 1)):
        config = replace(CONFIG, seed=seed)
        fc.Trainer(composed(), loss=fc.InfoNCE(), config=config, workdir=tmp_path / name).fit(
            data, data
        )
    best = {name: next((tmp_path / name / "best").iterdir()) for name in ("run", "other")}
    best["run"].write_bytes(best["other"].read_bytes())
    with pytest.raises(ValueError, match=f"{best['run']} holds the weights of another run"):
        fc.Trainer(composed(), loss=fc.InfoNCE(), config=CONFIG, workdir=tmp_path / "run").fit(
            data, data
        )


def test_best_weights_of_another_epoch_are_refused(tmp_path: Path) -> None:
    data, config = Toy(tmp_path), replace(CONFIG, keep_best=2)
    fc.Trainer(composed(), loss=fc.InfoNCE(), config=config, workdir=tmp_path / "run").fit(
        data, data
    )
    one, other = sorted((tmp_path / "run" / "best").iterdir())
    kept = one.read_bytes(), other.read_bytes()
    one.write_bytes(kept[1])
    other.write_bytes(kept[0])
    with pytest.raises(ValueError, match="holds the weights of another run or epoch"):
        fc.Trainer(composed(), loss=fc.InfoNCE(), config=config, workdir=tmp_path / "run").fit(
            data, data
        )


def test_files_of_the_user_s_own_stay_in_best(tmp_path: Path) -> None:
    data, own = Toy(tmp_path), tmp_path / "run" / "best" / "export.pt"
    fc.Trainer(
        composed(), loss=fc.InfoNCE(), config=replace(CONFIG, epochs=1), workdir=tmp_path / "run"
    ).fit(data, data)
    own.write_bytes(b"mine")
    fc.Trainer(composed(), loss=fc.InfoNCE(), config=CONFIG, workdir=tmp_path / "run").fit(
        data, data
    )
    assert own.read_bytes() == b"mine"


def test_a_callback_may_change_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    data, away = Toy(tmp_path), Meanwhile(lambda: os.chdir(tmp_path / "elsewhere"))
    run = fc.Trainer(
        composed(), loss=fc.InfoNCE(), config=CONFIG, workdir="run", callbacks=[away]
    ).fit(data, data)
    assert run.path == tmp_path / "run"
    assert list((tmp_path / "elsewhere").iterdir()) == []


# Two runs at once.


class Meanwhile:
    """Does something after the first step."""

    def __init__(self, job: Callable[[], Any]) -> None:
        self.job = job

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        if trainer.steps == 1:
            self.job()


def test_a_second_run_of_this_process_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    refused = []

    def second() -> None:
        with pytest.raises(ValueError, match=f"another run is training in {link}"):
            fit(link)
        refused.append(True)

    callbacks = [Meanwhile(second)]
    fit(tmp_path, callbacks=callbacks)
    assert refused == [True]
    fit(tmp_path, callbacks=callbacks)  # afterwards it is free


SECOND = """
import sys
from pathlib import Path
from fusecomp.training._workdir import only_run
try:
    with only_run(Path(sys.argv[1])):
        print("taken")
except ValueError as error:
    print(error)
"""


def second_process(folder: Path) -> str:
    command = [sys.executable, "-c", SECOND, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_run_of_another_process_is_refused(tmp_path: Path) -> None:
    found = []
    fit(tmp_path, callbacks=[Meanwhile(lambda: found.append(second_process(tmp_path / "run")))])
    assert "another run is training in" in found[0]
    assert second_process(tmp_path / "run") == "taken\n"


def test_neither_an_error_nor_a_forked_worker_keeps_the_folder(tmp_path: Path) -> None:
    children = []

    def fork() -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # a worker that outlives the run
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
        children.append((child, writer))

    with pytest.raises(Stop):
        fit(tmp_path, loss=StopAt(2), callbacks=[Meanwhile(fork)])
    assert second_process(tmp_path / "run") == "taken\n"
    fit(tmp_path, loss=StopAt(-1))
    for child, writer in children:
        os.close(writer)
        os.waitpid(child, 0)


def test_a_copy_of_the_folder_does_not_give_the_lock_away(tmp_path: Path) -> None:
    found = []

    class Backup:
        """Copies the folder, and so opens and closes the file that is locked."""

        def on_checkpoint(self, trainer: fc.Trainer, path: Path) -> None:
            shutil.copytree(path.parent, tmp_path / "backup", dirs_exist_ok=True)

        def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
            if trainer.steps == 2:
                found.append(second_process(tmp_path / "run"))

    fit(tmp_path, callbacks=[Backup()], config={"save_every_steps": 1})
    assert "another run" in found[0]


def test_a_lock_that_is_no_file_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "lock")
    with pytest.raises(OSError, match=r"no regular file.*lock"):
        fit(tmp_path)


# A checkpoint that was tampered with.


class StopAtCheckpoint:
    """Stops at the first checkpoint."""

    def on_checkpoint(self, trainer: fc.Trainer, path: Path) -> None:
        raise Stop


class Idle:
    """Takes the place of the callback above."""

    def on_end(self, trainer: fc.Trainer, run: fc.Run) -> None:
        """Do nothing."""


def train(root: Path, callback: Any) -> fc.Run:
    torch.manual_seed(0)
    model, data = fc.ComposedEncoder(encoder(), NormedSum()), Toy(root)
    loss = fc.InfoNCE(memory=fc.losses.Queue(8, DIM))
    config = replace(CONFIG, ema_decay=0.9)
    return fc.Trainer(
        model, loss=loss, config=config, workdir=root / "run", callbacks=[callback]
    ).fit(data, data)


WEIGHT = "fusion.norm.weight"


def put(*place: Any) -> Callable[[Any], Callable[[dict[str, Any]], Any]]:
    """Something else at a place of the state."""

    def change_to(value: Any) -> Callable[[dict[str, Any]], Any]:
        def change(state: dict[str, Any]) -> None:
            for name in place[:-1]:
                state = state[name]
            old = state.get(place[-1]) if isinstance(state, dict) else state[place[-1]]
            state[place[-1]] = value(old) if callable(value) else value

        return change

    return change_to


def without(*place: Any) -> Callable[[dict[str, Any]], Any]:
    def change(state: dict[str, Any]) -> None:
        for name in place[:-1]:
            state = state[name]
        del state[place[-1]]

    return change


def nan(old: Tensor) -> Tensor:
    return torch.full_like(old, torch.nan)


TAMPERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{
        f"no {part}": without(part)
        for part in ("epoch", "batch", "steps", "sums", "weights", "average", "optimizer", "scaler")
    },
    **{f"no {part}": without(part) for part in ("callbacks", "history", "identity")},
    "another part": put("more")(1),
    "no weight": without("weights", "model", WEIGHT),
    "one more weight": put("weights", "model", "x")(torch.ones(1)),
    "weight of another shape": put("weights", "model", WEIGHT)(torch.ones(1)),
    "weight of another dtype": put("weights", "model", WEIGHT)(lambda t: t.double()),
    "weight of integers": put("weights", "model", WEIGHT)(lambda t: t.long()),
    "complex weight": put("weights", "model", WEIGHT)(lambda t: t + 0j),
    "weight of NaN": put("weights", "model", WEIGHT)(nan),
    "weight that is a list": put("weights", "model", WEIGHT)([1.0] * DIM),
    "weight that is none": put("weights", "model", WEIGHT)(None),
    "buffer of another shape": put("weights", "model", "fusion.norm.running_var")(torch.ones(1)),
    "loss without its queue": put("weights", "loss")({}),
    "average without a weight": without("average", WEIGHT),
    "average of another shape": put("average", WEIGHT)(torch.ones(2, 3)),
    "no average": put("average")(None),
    "no moments of a weight": without("optimizer", WEIGHT),
    "moment of another shape": put("optimizer", WEIGHT, "exp_avg")(torch.zeros(1)),
    "moment of another dtype": put("optimizer", WEIGHT, "exp_avg")(lambda t: t.half()),
    "moment that is missing": without("optimizer", WEIGHT, "exp_avg_sq"),
    "moment below zero": put("optimizer", WEIGHT, "exp_avg_sq")(lambda t: t - 1),
    "moment of NaN": put("optimizer", WEIGHT, "exp_avg")(nan),
    "moments that share their bytes": lambda state: state["optimizer"][WEIGHT].update(
        exp_avg=state["optimizer"][WEIGHT]["exp_avg_sq"]
    ),
    "moments of a stranger": put("optimizer", "stranger")({}),
    "count that is too high": put("optimizer", WEIGHT, "step")(torch.tensor(1e6)),
    "count of another shape": put("optimizer", WEIGHT, "step")(torch.ones(2)),
    "epoch as text": put("epoch")("1"),
    "epoch beyond the end": put("epoch")(9),
    "epoch below zero": put("epoch")(-1),
    "epoch that is true": put("epoch")(True),
    "batch that does not fit": put("batch")(2),
    "steps that do not fit": put("steps")(7),
    "sums of text": put("sums", "loss")("0"),
    "sums of NaN": put("sums", "loss")(torch.nan),
    "scaler of a list": put("scaler")([]),
    "history of no epoch": put("history")([]),
    "history of text": put("history")("x"),
    "record of text": put("history", 0, "loss")("x"),
    "record of NaN": put("history", 0, "loss")(torch.nan),
    "record of another epoch": put("history", 0, "epoch")(2),
    "callbacks of another number": put("callbacks")([]),
    "callbacks that are no list": put("callbacks")(3),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stop):
        train(root, StopAtCheckpoint())
    return root


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_checkpoint_that_does_not_fit_is_refused_whole(
    stopped: Path, tamper: Callable[[dict[str, Any]], Any]
) -> None:
    last = stopped / "run" / "last.pt"
    before = last.read_bytes()
    state = read_tensors(last)
    tamper(state)
    write_tensors(last, state)
    try:
        with pytest.raises(ValueError, match=r"last\.pt"):
            train(stopped, Idle())
    finally:
        last.write_bytes(before)


def test_a_checkpoint_without_its_best_weights_is_refused(stopped: Path) -> None:
    (best,) = (stopped / "run" / "best").iterdir()
    weights = best.read_bytes()
    best.unlink()
    try:
        with pytest.raises(ValueError, match=rf"last\.pt .* best/{best.name} .* missing"):
            train(stopped, Idle())
    finally:
        best.write_bytes(weights)


def test_the_checkpoint_as_it_was_is_taken(stopped: Path, tmp_path: Path) -> None:
    """So that the refusals above are those of what was changed."""
    straight = train(tmp_path, Idle())
    last = stopped / "run" / "last.pt"
    write_tensors(last, read_tensors(last))
    assert_equal_weights(straight.model, train(stopped, Idle()).model)


def test_nothing_is_restored_of_what_is_refused(tmp_path: Path) -> None:
    data = Toy(tmp_path)
    fit(tmp_path, data=data)
    last = tmp_path / "run" / "last.pt"
    state = read_tensors(last)
    put("history")([])(state)
    write_tensors(last, state)
    torch.manual_seed(0)
    fresh = fc.ComposedEncoder(encoder(), fc.Combiner(DIM))
    before = copy.deepcopy(fresh)
    with pytest.raises(ValueError, match=r"last\.pt"):
        fc.Trainer(
            fresh, loss=fc.InfoNCE(), config=replace(CONFIG, epochs=1), workdir=tmp_path / "run"
        ).fit(data)
    assert_equal_weights(before, fresh)

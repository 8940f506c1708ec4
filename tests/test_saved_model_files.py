"""The folder of a saved model is written whole; changed, torn or strange, it is refused."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from composing import combiner, live
from full_disk import a_disk_of
from raising import own_error
from safetensors.torch import load_file
from torch import Tensor

from fusecomp._core.files import checksum
from fusecomp._core.safetensors import read_safetensors, write_safetensors
from fusecomp.fusions import Sum
from fusecomp.model import ComposedEncoder

CONFIG, WEIGHTS = "config.json", "weights.safetensors"


def config_of(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / CONFIG).read_text())
    return config


def rewrite(path: Path, **changes: Any) -> None:
    """Change fields of a config, as somebody does who knows of its checksum."""
    config = {**config_of(path), **changes}
    config.pop("checksum")
    (path / CONFIG).write_text(json.dumps({**config, "checksum": checksum(config)}))


def reweigh(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the weights, as somebody does who knows of both checksums."""
    weights = {n: t.clone() for n, t in read_safetensors(path / WEIGHTS).tensors.items()}
    change(weights)
    rewrite(path, weights=write_safetensors(path / WEIGHTS, weights, {}))


@pytest.mark.parametrize(
    "changes",
    [
        {"arguments": {"dim": 10**9}},
        {"arguments": {"dim": 10**18}},
        {"arguments": {"dim": "4"}},
        {"arguments": {}},
        {"arguments": {"dim": 4, "more": 1}},
        {"arguments": [4]},
        {"arguments": None},
        {"fusion": "nn.Linear", "arguments": {"in_features": 4, "out_features": 4}},
        {"fusion": "Sum", "arguments": {}},
        {"fusion": 3},
        {"settings": {"fusion": "Combiner"}},
        {"settings": None},
        {"features": 1},
        {"tied": {"fusion.more": "fusion.output_layer.bias"}},
        {"tied": {"fusion.more": "none"}},
        {"tied": 3},
        {"weights": "0" * 64},
    ],
    ids=str,
)
def test_a_hostile_config_is_refused(saved: Path, changes: dict[str, Any]) -> None:
    rewrite(saved)
    ComposedEncoder.load(saved, live())
    rewrite(saved, **changes)
    with pytest.raises(ValueError, match=f"^{saved}"):
        ComposedEncoder.load(saved, live())


@pytest.mark.parametrize("change", [{"format": "other/1"}, {"format": None}])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "model"
    ComposedEncoder(live(), Sum()).save(path)
    rewrite(path, **change)
    with pytest.raises(ValueError, match=f"{path} is no saved ComposedEncoder"):
        ComposedEncoder.load(path, live(), Sum())
    (path / CONFIG).write_text("[1]")
    with pytest.raises(ValueError, match=f"{path} is no saved ComposedEncoder"):
        ComposedEncoder.load(path, live(), Sum())


def test_a_changed_config_is_noticed(saved: Path) -> None:
    text = (saved / CONFIG).read_text()
    (saved / CONFIG).write_text(text.replace('"dropout": 0.5', '"dropout": 0.4'))
    with pytest.raises(ValueError, match=f"{saved / CONFIG} is torn or changed .*its checksum"):
        ComposedEncoder.load(saved, live())


def test_a_torn_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for name in (CONFIG, WEIGHTS):
        ComposedEncoder(live(), combiner()).save(path)
        whole = (path / name).read_bytes()
        for length in (0, 10, len(whole) // 2, len(whole) - 3):
            (path / name).write_bytes(whole[:length])
            with pytest.raises(ValueError, match=f"{path / name}"):
                ComposedEncoder.load(path, live(), combiner())
        (path / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"no file {path / name}"):
            ComposedEncoder.load(path, live(), combiner())
        (path / name).touch()  # so that the folder is still one of a model


def test_the_config_of_one_model_and_the_weights_of_another_are_refused(tmp_path: Path) -> None:
    for seed in (0, 1):
        ComposedEncoder(live(), combiner(seed)).save(tmp_path / str(seed))
    shutil.copy(tmp_path / "1" / WEIGHTS, tmp_path / "0" / WEIGHTS)
    with pytest.raises(ValueError, match=f"{WEIGHTS} is .* not those that config.json names"):
        ComposedEncoder.load(tmp_path / "0", live())


def test_the_safetensors_library_reads_the_weights(tmp_path: Path) -> None:
    model = ComposedEncoder(live(), combiner().bfloat16())
    model.save(tmp_path / "model")
    weights = load_file(tmp_path / "model" / WEIGHTS)
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], t) for name, t in model.state_dict().items())


FILE_WEIGHT = "fusion.output_layer.weight"
# By a weight [4, 5] of the file: what replaces it, and what is said of it.
STRANGE: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "whole numbers": (lambda own: own.long(), "is torch.int64 in the file, expected torch.f"),
    "booleans": (lambda own: own > 0, "is torch.bool in the file, expected torch.float32"),
    "complex": (lambda own: own + 1j, "is torch.complex64 in the file, expected torch.float32"),
    "another shape": (lambda own: own[:1], r"is \[1, 5\] in the file, expected \[4, 5\]"),
    "NaN": (
        lambda own: own.index_fill(0, torch.tensor(1), torch.nan),
        "holds NaN .*5 of 20 values",
    ),
    "infinity": (lambda own: own / 0, "holds NaN or infinity"),
    "too large": (lambda own: own.double() * 1e300, "holds NaN or infinity"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_weight_is_named_and_nothing_is_copied(tmp_path: Path, kind: str) -> None:
    path, (change, message) = tmp_path / "model", STRANGE[kind]
    ComposedEncoder(live(), combiner()).save(path)
    reweigh(path, lambda weights: weights.update({FILE_WEIGHT: change(weights[FILE_WEIGHT])}))
    other, fusion = live(seed=1), combiner(seed=1)
    before = deepcopy([other.state_dict(), fusion.state_dict()])
    with pytest.raises(ValueError, match=f"{path} .*{FILE_WEIGHT}' {message}"):
        ComposedEncoder.load(path, other, fusion)
    for part, saved in zip((other, fusion), before, strict=True):
        assert all(torch.equal(value, saved[name]) for name, value in part.state_dict().items())


def test_a_weight_too_few_or_too_many_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model"
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda weights: weights.pop(FILE_WEIGHT),
        lambda weights: weights.update(more=torch.ones(1)),
        lambda weights: weights.clear(),
    ]
    for change in changes:
        ComposedEncoder(live(), combiner()).save(path)
        reweigh(path, change)
        with pytest.raises(ValueError, match=f"{path} does not fit .* only one of the two has"):
            ComposedEncoder.load(path, live(), combiner())


def test_what_a_file_cannot_hold_is_named_and_the_old_model_stays(tmp_path: Path) -> None:
    path, fusion = tmp_path / "model", combiner()
    ComposedEncoder(live(), fusion).save(path)
    before = (path / CONFIG).read_bytes()
    for value in (
        torch.eye(3).to_sparse(),
        torch.ones(2, device="meta"),
        torch.ones(2).to(torch.complex128),
    ):
        fusion.register_buffer("odd", value)
        assert own_error(ComposedEncoder(live(), fusion).save, path).startswith("'fusion.odd' is ")
    assert (path / CONFIG).read_bytes() == before


# Written whole


def same_as(path: Path, model: ComposedEncoder) -> bool:
    back = ComposedEncoder.load(path, live(seed=5), combiner(seed=5)).state_dict()
    return all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())


def test_a_saved_model_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (tmp_path / "link").symlink_to("model")
    for seed, name in ((0, "model"), (1, "model"), (2, "link")):
        model = ComposedEncoder(live(seed), combiner(seed))
        model.save(tmp_path / name)
        assert same_as(path, model)
    assert sorted(part.name for part in tmp_path.iterdir()) == ["link", "model"]
    assert path.stat().st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("moment", ["tensors", "json", "first rename", "second rename"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(errno.ENOSPC, "full")])
def test_an_interrupted_save_leaves_the_old_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    error: BaseException | type[BaseException],
) -> None:
    path, model = tmp_path / "model", ComposedEncoder(live(), combiner())
    model.save(path)
    rename, calls = Path.rename, []

    def stop(*_: Any, **__: Any) -> None:
        raise error

    def stop_at(self: Path, target: Path) -> Path:
        calls.append(target)
        # The old folder is refused as a target, moved away, and the new one is put there.
        if len(calls) == {"first rename": 2, "second rename": 3}[moment]:
            stop()
        return rename(self, target)

    if moment in ("tensors", "json"):
        name = "write_safetensors" if moment == "tensors" else "write_json"
        monkeypatch.setattr(f"fusecomp._core.saved_model.{name}", stop)
    else:
        monkeypatch.setattr(Path, "rename", stop_at)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        ComposedEncoder(live(1), combiner(1)).save(path)
    monkeypatch.undo()
    assert same_as(path, model)
    assert [part.name for part in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_named_and_leaves_the_old_model(tmp_path: Path) -> None:
    path, model = tmp_path / "model", ComposedEncoder(live(), combiner())
    model.save(path)
    with (
        a_disk_of(100),
        pytest.raises(OSError, match=rf"cannot write {path} \(.*what was there is untouched"),
    ):
        ComposedEncoder(live(1), combiner(1)).save(path)
    assert same_as(path, model)
    assert [part.name for part in tmp_path.iterdir()] == ["model"]


def test_a_folder_or_file_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for name in ("folder", "file"):
        with pytest.raises(FileExistsError, match=f"cannot write {tmp_path / name}"):
            ComposedEncoder(live(), Sum()).save(tmp_path / name)
    assert (tmp_path / "folder" / "thesis.tex").exists()
    assert (tmp_path / "file").is_file()


def test_two_that_save_at_once_leave_a_whole_model(tmp_path: Path) -> None:
    path = tmp_path / "model"
    models = [ComposedEncoder(live(seed), combiner(seed)) for seed in range(4)]
    for _ in range(5):
        threads = [Thread(target=model.save, args=(path,)) for model in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert any(same_as(path, model) for model in models)
        assert [part.name for part in tmp_path.iterdir()] == ["model"]


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none"):
        ComposedEncoder.load(tmp_path / "none", live(), Sum())


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    with pytest.raises(ValueError, match=r"model\.pt is a file; a saved model is a folder"):
        ComposedEncoder.load(tmp_path / "model.pt", live())


@pytest.mark.parametrize("log", ["log.jsonl", "stage1/log.jsonl"])
def test_the_workdir_of_a_training_is_told_how_to_get_a_model(log: str, tmp_path: Path) -> None:
    (tmp_path / log).parent.mkdir(exist_ok=True)
    (tmp_path / log).touch()
    with pytest.raises(ValueError, match=r"is the workdir of a training.*run\.model\.save"):
        ComposedEncoder.load(tmp_path, live())


def test_a_model_that_was_saved_where_a_training_came_later_is_read(tmp_path: Path) -> None:
    model = ComposedEncoder(live(), combiner())
    model.save(tmp_path / "run")
    (tmp_path / "run/stage1").mkdir()
    (tmp_path / "run/stage1/log.jsonl").touch()
    loaded = ComposedEncoder.load(tmp_path / "run", live())
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)

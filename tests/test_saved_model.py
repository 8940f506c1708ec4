"""The folder of a saved model: written whole, read back, and refused where it does not fit."""

import errno
import json
import os
import shutil
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from composing import TEXTS, cached, combiner, live
from full_disk import a_disk_of
from raising import own_error
from torch import Tensor, nn

from fusecomp._core.files import checksum
from fusecomp._core.safetensors import read_safetensors, write_safetensors
from fusecomp.caching import CachedEncoder
from fusecomp.encoders import DualEncoder
from fusecomp.fusions import Combiner, Sum
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


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model"
    model = ComposedEncoder(live(seed=0), combiner(seed=0))
    model.save(path)
    back = ComposedEncoder.load(str(path), live(seed=1), combiner(seed=1))
    images = torch.randn(3, 3)
    assert torch.equal(back.encode_query(images, TEXTS), model.encode_query(images, TEXTS))
    assert {part.name for part in path.iterdir()} == {CONFIG, WEIGHTS}
    assert [part.name for part in path.parent.iterdir()] == ["model"]


def test_a_loaded_model_is_in_evaluation_mode(tmp_path: Path) -> None:
    path, images = tmp_path / "model", torch.randn(3, 3)
    ComposedEncoder(live(), combiner()).save(path)
    back = ComposedEncoder.load(path, live(), combiner())
    assert not any(module.training for module in back.modules())
    assert torch.equal(back(images, TEXTS), back(images, TEXTS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_fusion_of_the_package_is_rebuilt(
    tmp_path: Path, dtype: torch.dtype, compiled: bool
) -> None:
    fusion, path = Combiner(4, hidden_dim=5, dropout=0.25).to(dtype), tmp_path / "model"
    model = ComposedEncoder(live(), torch.compile(fusion, backend="eager") if compiled else fusion)
    model.save(path)
    back = ComposedEncoder.load(path, live(seed=1))
    assert isinstance(back.fusion, Combiner)
    assert (back.fusion.dim, back.fusion.projection_dim, back.fusion.hidden_dim) == (4, 16, 5)
    assert back.fusion.dropout == back.fusion.relu_dropout.p == 0.25
    for one, other in zip(back.fusion.parameters(), fusion.parameters(), strict=True):
        assert one.dtype == dtype
        assert torch.equal(one, other)


def test_a_fusion_without_weights_is_rebuilt_behind_features(tmp_path: Path) -> None:
    ComposedEncoder(cached(), Sum()).save(tmp_path / "model")
    assert isinstance(ComposedEncoder.load(tmp_path / "model", cached()).fusion, Sum)


class Mine(Combiner):
    """A fusion of the user's own."""


Mine.__qualname__ = "Combiner"


@pytest.mark.parametrize("fusion", [Mine(4), lambda image, text: image], ids=["class", "lambda"])
def test_a_fusion_of_the_users_own_is_not_rebuilt(tmp_path: Path, fusion: Any) -> None:
    ComposedEncoder(live(), fusion).save(tmp_path / "model")
    message = own_error(ComposedEncoder.load, tmp_path / "model", live())
    assert message.startswith(f"{tmp_path / 'model'} holds the fusion ")
    assert message.endswith(": pass fusion=")
    ComposedEncoder.load(tmp_path / "model", live(), fusion)


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
def test_a_hostile_config_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "model"
    ComposedEncoder(live(), combiner()).save(path)
    rewrite(path)
    ComposedEncoder.load(path, live())
    rewrite(path, **changes)
    with pytest.raises(ValueError, match=f"^{path}"):
        ComposedEncoder.load(path, live())


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


def test_a_changed_config_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model"
    ComposedEncoder(live(), combiner()).save(path)
    text = (path / CONFIG).read_text()
    (path / CONFIG).write_text(text.replace('"dropout": 0.5', '"dropout": 0.4'))
    with pytest.raises(ValueError, match=f"{path / CONFIG} is torn or changed .*its checksum"):
        ComposedEncoder.load(path, live())


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
    library = pytest.importorskip("safetensors.torch", reason="compares with the library")
    model = ComposedEncoder(live(), combiner().bfloat16())
    model.save(tmp_path / "model")
    weights = library.load_file(tmp_path / "model" / WEIGHTS)
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


def test_a_saved_model_may_have_a_lambda_and_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "model"
    model = ComposedEncoder(cached(), lambda image, text: image - text)
    model.save(path)
    back = ComposedEncoder.load(path, cached(), lambda image, text: image - text)
    assert torch.equal(back.encode_query(["a"], ["is red"]), model.encode_query(["a"], ["is red"]))


def test_a_model_of_other_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    ComposedEncoder(live(), combiner()).save(path)
    with pytest.raises(ValueError, match=f"{path} holds .*Combiner.* but .*Sum.* was given"):
        ComposedEncoder.load(path, live(), Sum())
    with pytest.raises(ValueError, match=r"DualEncoder.* but .*CachedEncoder"):
        ComposedEncoder.load(path, cached(), combiner())


@pytest.mark.parametrize(
    ("encoder", "fusion", "named"),
    [
        (
            live,
            lambda: Combiner(4, 3, 5, dropout=0.1),
            r"fusion\.dropout was '0.5' and is",
        ),
        (lambda: live(load=None), combiner, r"encoder\.load_image was"),
        (lambda: changed(live(), "image", nn.GELU()), combiner, r"encoder\.image\.1"),
    ],
    ids=["dropout", "load", "activation"],
)
def test_a_model_of_other_settings_is_refused(
    tmp_path: Path, encoder: Callable[[], DualEncoder], fusion: Callable[[], Combiner], named: str
) -> None:
    path = tmp_path / "model"
    ComposedEncoder(live(), combiner()).save(path)
    with pytest.raises(ValueError, match=f"{path} was saved with other settings.*: {named}"):
        ComposedEncoder.load(path, encoder(), fusion())


def changed(encoder: DualEncoder, side: str, activation: nn.Module) -> DualEncoder:
    getattr(encoder, side)[1] = activation
    return encoder


def test_a_lambda_of_other_code_or_values_is_another_fusion(tmp_path: Path) -> None:
    def scaled(scale: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda image, text: image + scale * text

    path = tmp_path / "model"
    ComposedEncoder(live(), scaled(1.0)).save(path)
    ComposedEncoder.load(path, live(), scaled(1.0))
    with pytest.raises(ValueError, match=r"other settings.*fusion was"):
        ComposedEncoder.load(path, live(), scaled(2.0))


def built(encoder: DualEncoder, **more: Any) -> CachedEncoder:
    names = ["a", "b"], ["is red", "is blue"]
    with torch.no_grad():
        images, texts = encoder.encode_image(torch.randn(2, 3)), encoder.encode_text(names[1])
    return CachedEncoder.from_arrays(names[0], images, names[1], texts, **more)


@pytest.mark.parametrize("suffix", [None, "", ", stored as torch.float16"])
def test_a_fusion_trained_on_features_goes_behind_a_live_encoder(
    tmp_path: Path, suffix: str | None
) -> None:
    path, encoder = tmp_path / "model", live()
    key = "" if suffix is None else encoder.fingerprint() + suffix
    trained = combiner(seed=3)
    ComposedEncoder(built(encoder, key=key), trained).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ComposedEncoder.load(path, live(), combiner(seed=1))
    images = torch.randn(3, 3)
    expected = ComposedEncoder(live(), trained).encode_query(images, TEXTS)
    assert torch.equal(model.encode_query(images, TEXTS), expected)


def test_features_of_another_encoder_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "model"
    ComposedEncoder(built(live(), key=live().fingerprint()), combiner()).save(path)
    with pytest.warns(UserWarning, match="was trained on features of the key 'weights"):
        ComposedEncoder.load(path, live(seed=1), combiner())
    with pytest.warns(UserWarning, match="this encoder's is 'mine'"):
        ComposedEncoder.load(path, built(live(), key="mine"), combiner())


def test_a_model_of_other_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    ComposedEncoder(live(), combiner()).save(path)
    other, narrow = live(seed=1), Combiner(4, projection_dim=2)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match=f"{path} does not fit the encoder and fusion given"):
        ComposedEncoder.load(path, other, narrow)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_compiled_or_not_a_saved_model_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model"
    model = ComposedEncoder(live(seed=0), combiner(seed=0))
    compiled = torch.compile(combiner(seed=0), backend="eager")
    ComposedEncoder(live(seed=0), compiled).save(path)
    back = ComposedEncoder.load(path, live(seed=1), combiner(seed=1))
    again = ComposedEncoder.load(
        path, live(seed=1), torch.compile(combiner(seed=1), backend="eager")
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)
    for one, other in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none"):
        ComposedEncoder.load(tmp_path / "none", live(), Sum())


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    with pytest.raises(ValueError, match=r"model\.pt is a file; a saved model is a folder"):
        ComposedEncoder.load(tmp_path / "model.pt", live())


class Masked(nn.Module):
    """A fusion with tied weights and a mask, as models have them."""

    def __init__(self, tied: bool = True, offset: float = 0.0) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.other = nn.Linear(4, 4)
        if tied:
            self.other.weight = self.one.weight
        mask = torch.full((4, 4), -torch.inf).triu(1) + offset
        self.register_buffer("mask", mask)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        total: Tensor = self.one(image) + self.other(text)
        return total


def test_masks_and_tied_weights_come_back(tmp_path: Path) -> None:
    path = tmp_path / "model"
    model = ComposedEncoder(live(seed=0), Masked())
    model.save(path)
    back = ComposedEncoder.load(path, live(seed=1), Masked())
    pairs = zip(back.state_dict().values(), model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    with pytest.raises(
        ValueError, match=r"'fusion.one.weight' and .*'fusion.other.weight' are the"
    ):
        ComposedEncoder.load(path, live(), Masked(tied=False))
    with pytest.raises(ValueError, match=r"'fusion.mask' holds NaN or infinity"):
        ComposedEncoder.load(path, live(), Masked(offset=torch.inf))


def test_an_expanded_buffer_of_the_model_given_is_named(tmp_path: Path) -> None:
    path, fusion, other = tmp_path / "model", combiner(), live(seed=1)
    fusion.register_buffer("same", torch.ones(1).expand(3))
    ComposedEncoder(live(), fusion).save(path)
    before = deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"'fusion.same' .*\.contiguous\(\)"):
        ComposedEncoder.load(path, other, fusion)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    fusion.same = torch.zeros(3)
    assert torch.equal(ComposedEncoder.load(path, other, fusion).fusion.same, torch.ones(3))  # type: ignore[attr-defined]


def test_half_precision_weights_load_into_float32_and_back(tmp_path: Path) -> None:
    path = tmp_path / "model"
    ComposedEncoder(live(), combiner().bfloat16()).save(path)
    fusion = combiner(seed=1)
    ComposedEncoder.load(path, live(), fusion)
    expected = combiner().bfloat16().output_layer.weight.float()
    assert torch.equal(fusion.output_layer.weight, expected)

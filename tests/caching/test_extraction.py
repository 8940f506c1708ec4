"""Extraction: blocks that survive, many processes, precision."""

import io
import pickle
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import extracting
import pytest
import torch
from extracting import IMAGES, Numbered, build, draw, full_disk, make, parts, seen
from processes import CONTEXT, Processes
from torch import nn

from fusecomp.caching import CachedEncoder
from fusecomp.encoders import DualEncoder


@pytest.fixture
def data(tmp_path: Path) -> Numbered:
    return draw(tmp_path / "images")


def start(data: Numbered, path: Path, journal: Path, seconds: float) -> BaseProcess:
    process = CONTEXT.Process(target=build, args=(data.root, path, journal, seconds))
    process.start()
    return process


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "the other process does not get on"
        time.sleep(0.01)


# Killed, and gone on with


def test_killed_half_way_it_goes_on_from_the_last_finished_block(
    data: Numbered, tmp_path: Path
) -> None:
    path, journal = tmp_path / "features", tmp_path / "journal"
    process = start(data, path, journal, seconds=0.05)
    wait_for(lambda: len(parts(path)) >= 2)
    process.kill()
    process.join()
    assert not path.exists()
    finished = 8 * len(parts(path))
    assert 16 <= finished < IMAGES
    resumed = tmp_path / "resumed"
    cached = build(data.root, path, resumed, 0.0)
    assert seen(resumed) == IMAGES - finished
    assert torch.equal(cached.image.features, build(data.root, None, None, 0.0).image.features)
    assert parts(path) == []


def test_the_file_equals_what_is_computed_in_memory(data: Numbered, tmp_path: Path) -> None:
    computed = build(data.root, None, None, 0.0)
    written = build(data.root, tmp_path / "features", None, 0.0)
    read = CachedEncoder.load(tmp_path / "features")
    for other in (written, read):
        assert torch.equal(other.image.features, computed.image.features)
        assert torch.equal(other.text.features, computed.text.features)
        assert list(other.image.rows) == list(computed.image.rows)
    assert [path.name for path in tmp_path.iterdir() if "features" in path.name] == ["features"]


def interrupted(data: Numbered, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks are there, the file is not."""
    with monkeypatch.context() as patch:
        patch.setattr("fusecomp.caching._cached.write_features", full_disk)
        with pytest.raises(OSError, match="disk is full"):
            build(data.root, path, None, 0.0)


class Hostile:
    """Unpickling it would create the file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


def test_a_torn_or_hostile_block_is_computed_again(
    data: Numbered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, journal, victim = (tmp_path / name for name in ("features", "journal", "victim"))
    interrupted(data, path, monkeypatch)
    for number, block in enumerate(parts(path)):
        whole = block.read_bytes()
        if number % 4 == 0:
            block.write_bytes(whole[:100])
        elif number % 4 == 1:
            block.write_bytes(b"")
        elif number % 4 == 2:
            block.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # a value of a feature
        else:
            block.write_bytes(pickle.dumps(Hostile(victim)))
    cached = build(data.root, path, journal, 0.0)
    assert seen(journal) == IMAGES
    assert torch.equal(cached.image.features, build(data.root, None, None, 0.0).image.features)
    assert not victim.exists()


def test_the_bar_reaches_its_end(data: Numbered, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("fusecomp._core.progress.sys", SimpleNamespace(stderr=screen))
    build(data.root, None, None, 0.0)
    images, texts = (line.rpartition("\r")[2] for line in screen.getvalue().rstrip().split("\n"))
    assert "[########################] 40/40 images" in images
    assert "[########################] 39/39 texts" in texts


def test_finished_blocks_are_read_not_computed(
    data: Numbered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, journal = tmp_path / "features", tmp_path / "journal"
    interrupted(data, path, monkeypatch)
    cached = build(data.root, path, journal, 0.0)
    assert seen(journal) == 0
    assert torch.equal(cached.image.features, build(data.root, None, None, 0.0).image.features)


def test_blocks_of_other_weights_are_not_used(
    data: Numbered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, journal = tmp_path / "features", tmp_path / "journal"
    interrupted(data, path, monkeypatch)
    other = make(journal)
    nn.init.ones_(next(other.parameters()))
    cached = CachedEncoder.build(other, data, path=path, batch_size=2)
    assert seen(journal) == IMAGES
    alone = CachedEncoder.build(other, data, batch_size=2)
    assert torch.equal(cached.image.features, alone.image.features)


# Many processes


def test_two_processes_on_one_cache_do_not_corrupt_it(data: Numbered, tmp_path: Path) -> None:
    path = tmp_path / "features"
    both = [start(data, path, tmp_path / f"journal{i}", seconds=0.02) for i in range(2)]
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    build(data.root, tmp_path / "alone", None, 0.0)
    assert path.read_bytes() == (tmp_path / "alone").read_bytes()


@pytest.mark.parametrize("kept", [True, False])
def test_processes_share_the_work_and_make_the_same_file(
    data: Numbered, tmp_path: Path, two: Processes, three: Processes, kept: bool
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = build(data.root, tmp_path / "alone", None, 0.0)
    torch.set_num_threads(threads)
    for count, processes in ((2, two), (3, three)):
        path = tmp_path / f"features{count}" if kept else None
        journals = [tmp_path / f"journal{count}-{rank}" for rank in range(count)]
        built = processes.run(build_in_one, data.root, path, journals)
        counts = [seen(journal) for journal in journals]
        assert sum(counts) == IMAGES
        assert min(counts) >= 8
        for images, texts in built:
            assert torch.equal(images, alone.image.features)
            assert torch.equal(texts, alone.text.features)
        if path is not None:
            assert path.read_bytes() == (tmp_path / "alone").read_bytes()
            assert parts(path) == []


def build_in_one(
    root: Path, path: Path | None, journals: list[Path]
) -> tuple[torch.Tensor, torch.Tensor]:
    cached = build(root, path, journals[torch.distributed.get_rank()], 0.0)
    return cached.image.features, cached.text.features


# Precision and storage


def test_features_can_be_stored_as_float16(data: Numbered, tmp_path: Path) -> None:
    path = tmp_path / "features"
    exact = CachedEncoder.build(make(), data)
    small = CachedEncoder.build(make(), data, path=path, dtype=torch.float16)
    for cached in (small, CachedEncoder.load(path)):
        assert cached.image.features.dtype == torch.float16
        looked_up = cached.encode_image(["3"])
        assert looked_up.dtype == torch.float32
        assert torch.equal(looked_up, exact.encode_image(["3"]).half().float())
    with pytest.raises(ValueError, match=r"stored as torch\.float16"):
        CachedEncoder.build(make(), data, path=path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_blocks_and_files_keep_every_bit_of_a_dtype(
    data: Numbered, tmp_path: Path, dtype: torch.dtype
) -> None:
    def build(encoder: DualEncoder, path: Path | None) -> CachedEncoder:
        return CachedEncoder.build(encoder, data, path=path, dtype=dtype, batch_size=2)

    path = tmp_path / "features"
    in_memory = build(make(), None)
    with pytest.raises(RuntimeError, match="stopped"):
        CachedEncoder.build(
            DualEncoder(make().image, refuse, extracting.load),
            data,
            path=path,
            key=make().fingerprint(),
            dtype=dtype,
            batch_size=2,
        )
    written = parts(path)
    assert len(written) == 5
    resumed = build(make(), path)
    reloaded = build(make(), path)
    for cached in (in_memory, resumed):
        assert cached.image.features.dtype == cached.text.features.dtype == dtype
    for other in (resumed, reloaded):
        assert torch.equal(
            other.encode_image(data.image_ids), in_memory.encode_image(data.image_ids)
        )
        assert torch.equal(other.encode_text(data.texts()), in_memory.encode_text(data.texts()))


def refuse(*_: object) -> torch.Tensor:
    raise RuntimeError("stopped")


def test_bf16_computes_by_autocast(data: Numbered, tmp_path: Path) -> None:
    exact = CachedEncoder.build(make(), data)
    coarse = CachedEncoder.build(make(), data, path=tmp_path / "features", precision="bf16")
    assert coarse.image.features.dtype == torch.float32
    assert not torch.equal(coarse.image.features, exact.image.features)
    torch.testing.assert_close(coarse.image.features, exact.image.features, atol=0.02, rtol=0.02)
    with pytest.raises(ValueError, match="computed in bf16"):
        CachedEncoder.build(make(), data, path=tmp_path / "features")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"precision": "fp8"}, "unknown precision 'fp8'; valid: 'fp32', 'bf16', 'fp16'"),
        ({"precision": "fp16"}, "needs a GPU"),
        ({"on_error": "ignore"}, "unknown on_error 'ignore'; valid: 'raise', 'skip'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"num_workers": -1}, "workers must be a whole number of at least 0, got -1"),
        ({"dtype": torch.int8}, r"dtype must be floating, one of .*; got torch\.int8"),
    ],
)
def test_bad_options_are_named(data: Numbered, option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CachedEncoder.build(make(), data, **option)  # type: ignore[arg-type]


def test_features_that_are_not_finite_are_named_before_they_are_kept(
    data: Numbered, tmp_path: Path
) -> None:
    encoder = DualEncoder(nn.Sequential(nn.Linear(8, 6), _Fifth()), make().text, extracting.load)
    with pytest.raises(ValueError, match="features of image '5' hold NaN or infinity"):
        CachedEncoder.build(encoder, data, path=tmp_path / "features", key="mine", batch_size=40)
    assert parts(tmp_path / "features") == []


class _Fifth(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.index_fill(0, torch.tensor([5]), torch.nan)


def test_half_precision_that_overflows_is_named(data: Numbered) -> None:
    encoder = make()
    nn.init.constant_(next(encoder.parameters()), 1e6)
    with pytest.raises(ValueError, match="features of image '0' hold NaN or infinity"):
        CachedEncoder.build(encoder, data, dtype=torch.float16)

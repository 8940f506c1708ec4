"""Images from paths."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fusecomp._core.randomness import keyed
from fusecomp.images._loading import (
    ImageError,
    load_available,
    load_few,
    load_one,
    require_files,
)


def number_of(path: Path) -> Tensor:
    """An image made of the number in the file's name; 7 is broken, 8 has another shape."""
    number = int(path.stem)
    if number == 7:
        raise OSError("truncated")
    return torch.full((1, 3 if number == 8 else 2), float(number))


def load_all(files: list[Path] | dict[int, Path], *args: Any, **options: Any) -> Iterator[Tensor]:
    files = files if isinstance(files, dict) else dict(enumerate(files))
    options["on_error"] = "raise"
    for loaded in load_available(files, *args, **options):
        assert loaded.images is not None
        yield loaded.images


def paths(count: int) -> list[Path]:
    return [Path(f"{number}.png") for number in range(count)]


@pytest.mark.parametrize("num_workers", [None, 0, 2])
def test_images_come_stacked_in_the_order_of_the_batches(num_workers: int | None) -> None:
    batches = [[3, 0], [5], [2, 2, 1], [6, 4]]
    loaded = list(load_all(paths(7), number_of, batches, num_workers))
    assert [image[:, 0, 0].tolist() for image in loaded] == batches
    assert loaded[0].shape == (2, 1, 2)


def test_positions_may_be_the_keys_of_a_mapping() -> None:
    (loaded,) = load_all({40: Path("4.png"), 2: Path("1.png")}, number_of, [[2, 40]])
    assert loaded[:, 0, 0].tolist() == [1, 4]


def test_many_images_come_in_order_whatever_number_of_workers_is_chosen() -> None:
    files = [Path(f"{100 + number}.png") for number in range(600)]
    batches = [list(range(start, start + 150)) for start in range(0, 600, 150)]
    loaded = torch.cat(list(load_all(files, number_of, batches)))
    assert loaded[:, 0, 0].tolist() == list(range(100, 700))


@pytest.mark.parametrize(
    ("cores", "device", "num_workers"),
    [
        (3, None, 3),
        (None, None, 1),
        (500, None, 16),
        (500, "cuda", 16),
        # Half of the cores are the encoder's.
        (2, "cpu", 1),
        (1, "cpu", 1),
        (8, "cpu", 4),
    ],
)
def test_the_number_of_cores_is_known_on_every_system(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, device: str | None, num_workers: int
) -> None:
    asked: list[int] = []

    class Loader:
        def __init__(self, *_: Any, num_workers: int, **__: Any) -> None:
            asked.append(num_workers)

        def __iter__(self) -> Iterator[Tensor]:
            return iter(())

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr("fusecomp.images._loading.DataLoader", Loader)
    where = None if device is None else torch.device(device)
    list(load_all(paths(600), number_of, [list(range(600))], device=where))
    assert asked == [num_workers]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_caller_s_random_numbers_stay_as_they_were(num_workers: int) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(load_all(paths(4), number_of, [[0, 1], [2]], num_workers))
    assert torch.equal(torch.rand(1), expected)


def random_number(path: Path) -> Tensor:
    return torch.rand(1)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_random_numbers_belong_to_the_image_and_the_key(num_workers: int) -> None:
    def drawn(*batches: list[int], key: tuple[int, ...] | None = None) -> dict[int, float]:
        loaded = load_all(paths(4), random_number, batches, num_workers, key=key)
        order = (position for batch in batches for position in batch)
        return dict(zip(order, torch.cat(list(loaded)).flatten().tolist(), strict=True))

    first = drawn([0, 1], [2, 3])
    assert len(set(first.values())) == 4
    assert drawn([2, 1], [3, 0]) == first
    assert set(drawn([0, 1, 2, 3], key=(0, 1)).values()).isdisjoint(first.values())
    with keyed(0, 1):
        assert drawn([0, 1], [2, 3]) == drawn([3, 0], [1, 2], key=(0, 1))
    assert load_few(paths(4), random_number).flatten().tolist() == [first[n] for n in range(4)]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_image_that_cannot_be_read_is_named(num_workers: int) -> None:
    with pytest.raises(ImageError, match=r"^cannot read the image 7.png \(OSError: truncated"):
        list(load_all(paths(9), number_of, [[6], [7]], num_workers))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_images_of_two_shapes_are_named(num_workers: int) -> None:
    with pytest.raises(ValueError, match=r"^8.png has shape \[1, 3\] and 6.png \[1, 2\]"):
        list(load_all(paths(9), number_of, [[6, 8]], num_workers))


@pytest.mark.parametrize("result", [None, [1.0], "image"])
def test_a_load_that_makes_no_tensor_is_named(result: Any) -> None:
    load: Callable[[Path], Any] = lambda path: result  # noqa: E731
    with pytest.raises(ImageError, match=rf"a.png\) returned {type(result).__name__}, expected"):
        load_one(Path("a.png"), load)


def test_running_out_of_memory_is_not_the_image_s_fault() -> None:
    def load(path: Path) -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        load_one(Path("a.png"), load)


@pytest.mark.parametrize(
    "error", [ImportError("needs Pillow"), ImageError("cannot read the image a.png (empty)")]
)
def test_what_says_enough_already_is_raised_as_it_is(error: Exception) -> None:
    def load(path: Path) -> Tensor:
        raise error

    with pytest.raises(type(error)) as caught:
        load_one(Path("a.png"), load)
    assert caught.value is error


def test_a_image_error_is_a_value_error() -> None:
    assert issubclass(ImageError, ValueError)


def test_absent_files_are_counted_and_the_first_five_named(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(9)]
    files[1].write_bytes(b"")
    files[8].mkdir()
    with pytest.raises(FileNotFoundError, match="8 of 9 images are missing") as caught:
        require_files(files)
    named = [str(file) in str(caught.value) for file in files]
    assert named == [True, False, True, True, True, True, False, False, False]


def test_files_that_are_all_there_pass(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    require_files([tmp_path / "a.png"])
    require_files([])

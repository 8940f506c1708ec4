"""Extraction beside images that cannot be read: they end it, or are skipped and listed."""

from pathlib import Path

import extracting
import pytest
import torch
from extracting import IMAGES, Numbered, build, draw, full_disk, make

from fusecomp import ComposedEncoder, Sum, evaluate, rank
from fusecomp.caching import CachedEncoder
from fusecomp.datasets import drop_images
from fusecomp.images._loading import ImageError
from fusecomp.training import StageConfig, batches


@pytest.fixture
def data(tmp_path: Path) -> Numbered:
    return draw(tmp_path / "images")


@pytest.fixture
def broken(data: Numbered) -> Numbered:
    """Image 3 is broken, 7 is missing, 8 and 9 (a whole batch of two) are empty."""
    data.path("3").write_text("no number")
    data.path("7").unlink()
    for image_id in ("8", "9"):
        data.path(image_id).write_bytes(b"")
    return data


def test_by_default_the_first_bad_image_ends_it(broken: Numbered) -> None:
    with pytest.raises(FileNotFoundError, match=r"1 of 40 images are missing.*7\.png"):
        CachedEncoder.build(make(), broken)
    broken.path("7").write_text("7")
    with pytest.raises(ImageError, match=r"cannot read the image .*3\.png \(ValueError"):
        CachedEncoder.build(make(), broken)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipping_lists_every_bad_image_and_keeps_the_others(
    broken: Numbered, tmp_path: Path, num_workers: int
) -> None:
    path = tmp_path / "features"
    options = {"on_error": "skip", "batch_size": 2, "num_workers": num_workers}
    built = CachedEncoder.build(make(), broken, path=path, **options)  # type: ignore[arg-type]
    again = CachedEncoder.build(make(), broken, path=path, **options)  # type: ignore[arg-type]
    for cached in (built, CachedEncoder.load(path), again):
        assert sorted(cached.skipped) == ["3", "7", "8", "9"]
        assert "3.png" in cached.skipped["3"]
        assert "FileNotFoundError" in cached.skipped["7"]
        assert len(cached.image.rows) == IMAGES - 4
        expected = make().encode_image(extracting.load(broken.path("10")).unsqueeze(0))
        torch.testing.assert_close(cached.encode_image(["10"]), expected)
    with pytest.raises(ValueError, match=r"lacks the features of 4 images, the first: '3'"):
        CachedEncoder.build(make(), broken, path=path)


def test_what_was_skipped_says_why_where_it_is_needed(broken: Numbered) -> None:
    cached = CachedEncoder.build(make(), broken, on_error="skip")
    with pytest.raises(ValueError, match=r"image '3' was skipped .*3\.png.*datasets\.drop_images"):
        cached.encode_image(["3"])
    config = StageConfig(epochs=1, batch_size=8, lr=1e-3)
    with pytest.raises(ValueError, match=r"was skipped .*datasets\.drop_images"):
        next(batches(broken, cached, config, epoch=0))
    rest = drop_images(broken, cached.skipped)
    rows = sum(len(batch) for batch in batches(rest, cached, config, epoch=0))
    assert rows == len(rest) == 39 - 6


def test_a_repaired_image_is_read_when_a_killed_extraction_goes_on(
    broken: Numbered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "features"
    with monkeypatch.context() as patch:
        patch.setattr("fusecomp.caching._cached.write_features", full_disk)
        with pytest.raises(OSError, match="disk is full"):
            CachedEncoder.build(make(), broken, path=path, batch_size=2, on_error="skip")
    with pytest.raises(FileNotFoundError, match="1 of 16 images are missing"):
        CachedEncoder.build(make(), broken, path=path, batch_size=2)
    for image_id in ("3", "7", "8", "9"):
        broken.path(image_id).write_text(image_id)
    cached = CachedEncoder.build(make(), broken, path=path, batch_size=2)
    assert cached.skipped == {}
    assert torch.equal(cached.image.features, build(broken.root, None, None, 0.0).image.features)


def test_no_readable_image_at_all_is_an_error(data: Numbered) -> None:
    for image_id in data.image_ids:
        data.path(image_id).write_text("no number")
    with pytest.raises(ValueError, match=r"none of 40 images.*0\.png"):
        CachedEncoder.build(make(), data, on_error="skip")


def test_evaluation_says_what_it_lacks_beside_the_scores(broken: Numbered) -> None:
    cached = CachedEncoder.build(make(), broken, on_error="skip")
    evaluation = evaluate(ComposedEncoder(cached, Sum()), broken)
    live = evaluate(ComposedEncoder(make(), Sum()), broken, on_error="skip")
    rest = drop_images(broken, cached.skipped)
    for other in (evaluation, live, evaluate(ComposedEncoder(make(), Sum()), rest)):
        task = other.ranking[""].task
        # Each image is the reference of one query and the target of the one before.
        assert task.missing_queries == ("q2", "q3", "q6", "q7", "q8", "q9")
        assert task.missing_images == ("3", "7", "8", "9")
        assert other.protocol["missing"] == "6 of 39 queries, 4 of 40 gallery images"
        assert "all: 33 queries in 36 images (missing: 6 queries, 4 images)" in str(other)
        assert dict(other) == dict(evaluation)
    with pytest.raises(FileNotFoundError, match="1 of 40 images are missing"):
        rank(ComposedEncoder(make(), Sum()), broken)

"""Tokens that are computed once: their file, their size, their gather, and what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from extracting import Images, Numbered, draw, load
from raising import own_error
from torch import Tensor, nn

from fusecomp.caching import CachedEncoder, PartlyCachedEncoder
from fusecomp.caching._token_table import TokenTable
from fusecomp.encoders import DualEncoder
from fusecomp.types import Tokens

WIDTH = 16


class Letters(nn.Module):
    """A token for each letter, at random, padded with NaN; the features are their mean."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.letter = nn.Embedding(128, WIDTH)
        self.dtype = dtype
        self.change: Any = lambda tokens: tokens

    def encode_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tokens]:
        longest = max(map(len, texts))
        numbers = torch.tensor([[ord(letter) for letter in t.ljust(longest)] for t in texts])
        mask = torch.arange(longest) < torch.tensor([[len(text)] for text in texts])
        values = self.letter(numbers)
        features = (values * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        padded = values.masked_fill(~mask[..., None], torch.nan).to(self.dtype)
        return features, self.change(Tokens(padded, mask))

    def forward(self, texts: Sequence[str]) -> Tensor:
        return self.encode_tokens(texts)[0]


def make(dtype: torch.dtype = torch.float32) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(Images(), Letters(dtype), load)


def build(data: Numbered, path: Path | None = None, **more: Any) -> CachedEncoder:
    encoder = more.pop("encoder", None) or make()
    return CachedEncoder.build(encoder, data, path=path, tokens=["text"], batch_size=8, **more)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("stored", [False, True])
def test_tokens_are_as_they_were_computed(tmp_path: Path, dtype: torch.dtype, stored: bool) -> None:
    data = draw(tmp_path / "images")
    cached = build(data, tmp_path / "features" if stored else None, encoder=make(dtype))
    if stored:
        cached = CachedEncoder.load(tmp_path / "features", check=True)
    assert cached.token_sides == ["text"]
    texts = [data.texts()[n] for n in (5, 30, 5, 0)]
    features, tokens = cached.encode_text_tokens(texts)
    expected, live = make(dtype).encode_text_tokens(texts)
    assert tokens.values.dtype == dtype
    assert torch.equal(tokens.mask, live.mask)
    assert torch.equal(tokens.values[tokens.mask], live.values[live.mask])
    assert not tokens.values[~tokens.mask].any()
    torch.testing.assert_close(features, expected)
    assert torch.equal(cached.encode_text(texts), features)
    rows = cached.encode_text_tokens(cached.lookup["text"](texts))
    assert torch.equal(rows[1].values, tokens.values)


def test_only_unmasked_tokens_are_stored(tmp_path: Path) -> None:
    data = draw(tmp_path / "images")
    build(data, tmp_path / "with")
    CachedEncoder.build(make(), data, path=tmp_path / "without", batch_size=8)
    letters = sum(map(len, data.texts()))
    more = (tmp_path / "with").stat().st_size - (tmp_path / "without").stat().st_size
    # Offsets and the file's header count little where tokens are as wide as real ones.
    assert more - 8 * (len(data.texts()) + 1) <= 4 * WIDTH * (letters + 1) + 600
    half = build(data, tmp_path / "half", dtype=torch.float16)
    assert half.text.tokens is not None
    assert half.text.tokens.values.dtype == torch.float16


def test_a_build_says_what_tokens_cost_before_it_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = draw(tmp_path / "images")
    build(data)
    assert "tokens of texts" not in capsys.readouterr().err  # nothing is written
    build(data, tmp_path / "features", encoder=make(torch.bfloat16))
    letters = sum(map(len, data.texts()[:32])) / 32
    said = f"0.2 MB for each 1,000 (bfloat16, {letters:.1f} x {WIDTH} numbers each)\n"
    assert said in capsys.readouterr().err
    build(data, tmp_path / "features", encoder=make(torch.bfloat16))
    assert "tokens of texts" not in capsys.readouterr().err


def test_a_killed_build_goes_on_with_the_tokens_of_finished_blocks(tmp_path: Path) -> None:
    data = draw(tmp_path / "images")
    calls: list[int] = []

    class Stopping(Letters):
        def encode_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tokens]:
            calls.append(len(texts))
            if len(calls) == 5:
                raise KeyboardInterrupt
            return super().encode_tokens(texts)

    torch.manual_seed(0)
    encoder = DualEncoder(Images(), Stopping(), load)
    with pytest.raises(KeyboardInterrupt):
        build(data, tmp_path / "features", encoder=encoder, key="mine")
    cached = build(data, tmp_path / "features", encoder=encoder, key="mine")
    assert calls == [8, 8, 8, 8, 7, 7]  # the first block was not computed again
    expected = build(data)
    assert cached.text.tokens is not None and expected.text.tokens is not None
    assert torch.equal(cached.text.tokens.values, expected.text.tokens.values)
    assert torch.equal(cached.text.tokens.offsets, expected.text.tokens.offsets)


def test_a_file_without_tokens_is_refused_where_they_are_asked_for(tmp_path: Path) -> None:
    data, path = draw(tmp_path / "images"), tmp_path / "features"
    plain = CachedEncoder.build(make(), data, path=path, batch_size=8)
    assert plain.token_sides == []
    error = own_error(plain.encode_text_tokens, [data.texts()[0]])
    assert 'no text tokens are kept: build with tokens=["text"]' in error
    assert f"{path} holds no tokens of texts; delete it" in own_error(build, data, path)


def test_a_side_that_gives_no_tokens_is_named(tmp_path: Path) -> None:
    data = draw(tmp_path / "images")
    error = own_error(CachedEncoder.build, make(), data, tokens=["image"])
    assert "this DualEncoder gives no image tokens" in error
    assert "unknown side of tokens 'both'" in own_error(
        CachedEncoder.build, make(), data, tokens=["both"]
    )
    assert "tokens must be a list of strings" in own_error(
        CachedEncoder.build, make(), data, tokens="text"
    )


CHANGES: dict[str, tuple[Any, str]] = {
    "a gap": (
        lambda t: Tokens(t.values, t.mask & (torch.arange(t.mask.shape[1]) != 1)),
        "has padding before or between its tokens",
    ),
    "padding first": (
        lambda t: Tokens(t.values.flip(1), t.mask.flip(1)),
        "has padding before or between its tokens",
    ),
    "NaN": (
        lambda t: Tokens(torch.full_like(t.values, torch.nan), t.mask),
        "the tokens of text 'is ",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tokens_that_cannot_be_kept_are_named(tmp_path: Path, change: str) -> None:
    data, encoder = draw(tmp_path / "images"), make()
    function, message = CHANGES[change]
    encoder.text.change = function  # type: ignore[attr-defined]
    error = own_error(build, data, encoder=encoder)
    assert message in error


def test_the_text_with_nan_is_the_one_that_is_named(tmp_path: Path) -> None:
    data, encoder = draw(tmp_path / "images"), make()

    def spoil(tokens: Tokens) -> Tokens:
        values = tokens.values.clone()
        values[2, 3] = torch.inf
        return Tokens(values, tokens.mask)

    encoder.text.change = spoil  # type: ignore[attr-defined]
    assert f"the tokens of text {data.texts()[2]!r} hold" in own_error(build, data, encoder=encoder)


TABLES: dict[str, tuple[Any, Any, str]] = {
    "integers": (torch.ones(4, 2).long(), [0, 3], "must be floating"),
    "one axis": (torch.zeros(4), [0, 3], "must be floating"),
    "no row": (torch.zeros(1, 2), [0], "must rise from 0 to 0"),
    "beyond the end": (torch.zeros(4, 2), [0, 4], "must rise from 0 to 3"),
    "backwards": (torch.zeros(4, 2), [0, 2, 1, 3], "must rise from 0 to 3"),
    "an empty row": (torch.zeros(4, 2), [0, 2, 2, 3], "must rise from 0 to 3"),
    "floating offsets": (torch.zeros(4, 2), [0.0, 3.0], "must rise from 0 to 3"),
    "no padding": (torch.ones(4, 2), [0, 3], "do not end with zeros"),
    "NaN for padding": (torch.full((4, 2), torch.nan), [0, 3], "do not end with zeros"),
}


@pytest.mark.parametrize("bad", TABLES)
def test_a_table_that_makes_no_sense_is_refused(bad: str) -> None:
    values, offsets, message = TABLES[bad]
    with pytest.raises(ValueError, match=message):
        TokenTable(values, torch.tensor(offsets))


def test_tokens_with_nan_are_never_written(tmp_path: Path) -> None:
    data = draw(tmp_path / "images")
    cached = CachedEncoder.build(make(), data, tokens=["text"])
    table = cached.text.tokens
    assert table is not None
    table.values[table.offsets[3]] = torch.inf
    with pytest.raises(ValueError, match=f"the tokens of text '{data.texts()[3]}' hold NaN or inf"):
        cached.save(tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_images_may_have_tokens_and_be_skipped(tmp_path: Path) -> None:
    class Halves(nn.Module):
        def encode_tokens(self, images: Tensor) -> tuple[Tensor, Tokens]:
            values = images.unflatten(1, (2, 4))
            return images, Tokens(values, torch.ones(values.shape[:2], dtype=torch.bool))

        def forward(self, images: Tensor) -> Tensor:
            return images

    data = draw(tmp_path / "images")
    data.path("3").write_text("torn")
    cached = CachedEncoder.build(
        DualEncoder(Halves(), Letters(), load),
        data,
        tokens=["image", "text"],
        on_error="skip",
        path=tmp_path / "features",
        key="mine",
    )
    features, tokens = CachedEncoder.load(tmp_path / "features").encode_image_tokens(["2", "4"])
    assert cached.skipped.keys() == {"3"}
    assert torch.equal(tokens.values.flatten(1), features)
    assert torch.equal(features[1], load(data.path("4")))


def test_a_gpu_gathers_the_same_tokens(cuda: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 6, (20,), generator=generator)
    table = TokenTable.of_rows(torch.randn(int(lengths.sum()), 4, generator=generator), lengths)
    rows = torch.tensor([19, 0, 7, 7])
    expected, found = table(rows), table.to(cuda)(rows.to(cuda))
    assert torch.equal(found.values.cpu(), expected.values)
    assert torch.equal(found.mask.cpu(), expected.mask)


class FirstTexts:
    """A dataset with its first texts alone."""

    def __init__(self, data: Any, count: int) -> None:
        self._data, self._count = data, count

    def texts(self) -> list[str]:
        found: list[str] = self._data.texts()[: self._count]
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)


@pytest.mark.parametrize("known_tokens", [["text"], []])
@pytest.mark.parametrize("tokens", [["text"], []])
def test_known_tables_go_on_with_the_tokens_that_are_asked_for(
    tmp_path: Path, known_tokens: list[str], tokens: list[str]
) -> None:
    data, encoder = draw(tmp_path / "images"), make()
    few: Any = FirstTexts(data, 3)
    first = PartlyCachedEncoder.build(encoder, few, sides=["text"], tokens=known_tokens)
    known: Any = dict(first.tables.items())
    partly = PartlyCachedEncoder.build(encoder, data, sides=["text"], tokens=tokens, known=known)
    texts = data.texts()
    assert torch.equal(partly.encode_text(texts), encoder.encode_text(texts))
    assert partly.token_sides == tokens
    if tokens:
        (features, found), (_, live) = (one.encode_text_tokens(texts) for one in (partly, encoder))
        assert torch.equal(features, partly.encode_text(texts))
        assert torch.equal(found.mask, live.mask)
        assert torch.equal(found.values[found.mask], live.values[live.mask])

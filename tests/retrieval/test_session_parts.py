"""What a session is made of: strategies of one's own, and a model whose weights may change."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from composing import combiner, live
from raising import own_error

import fusecomp as fc
from fusecomp.retrieval import SearchSession

IDS = ["a", "b", "c"]
IMAGES = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))


def encode(model: fc.ComposedEncoder) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().encoder.encode_image(IMAGES)


MODEL = fc.ComposedEncoder(live(), combiner())
GALLERY = fc.Gallery(IDS, encode(MODEL))


class Own:
    adds_rounds = True

    def __init__(self, change: Callable[[torch.Tensor], Any]) -> None:
        self.change = change

    def combine(self, queries: torch.Tensor, *others: torch.Tensor) -> Any:
        return self.change(torch.cat([queries, others[1]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda query: None, "returns must be a torch tensor, got NoneType"),
        (lambda query: query.numpy(), "returns must be a torch tensor"),
        (lambda query: query[0], r"must be \[1, E\] and not empty, got \[4\]"),
        (lambda query: query * torch.nan, "row 0 holds NaN"),
        (lambda query: torch.cat([query, query]), r"must be \[1, E\], one row, got \[2, 4\]"),
    ],
)
def test_a_strategy_of_ones_own_returns_one_query(
    change: Callable[[torch.Tensor], Any], message: str
) -> None:
    session = SearchSession(MODEL, GALLERY, Own(change))
    for call in (
        lambda: session.ask(IDS[0], "is red", exclude_seen=False),
        lambda: session.like("a"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"what combine of Own .*{message}"):
            call()
        assert session.history == ()


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda rows: rows.repeat(2, 1), "one row, got"), (lambda rows: rows / 0, "row 0 holds NaN")],
)
def test_an_encoder_that_gives_no_one_row_is_named(
    side: str, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    sides: dict[str, Any] = {
        "image": torch.nn.Identity(),
        "text": lambda texts: torch.ones(len(texts), 3),
    }
    right = sides[side]
    encoder = fc.DualEncoder(**sides | {side: lambda given: change(right(given))})
    session = SearchSession(fc.ComposedEncoder(encoder, fc.Sum()), fc.Gallery(IDS, IMAGES))
    alone = {"image": (IMAGES[0], None), "text": (None, "is red")}
    for asked in (alone[side], (IMAGES[0], "is red")):
        with pytest.raises(ValueError, match=f"what encode_{side} returns .*{message}"):
            session.ask(*asked)
    assert session.history == ()


def test_the_weights_are_compared_once_for_all_sessions() -> None:
    encoder, asked = live(), []
    model = fc.ComposedEncoder(encoder, combiner())

    class Counted(fc.Gallery):
        def require_model(self, model: Any) -> None:
            asked.append(model)
            super().require_model(model)

    gallery = Counted(IDS, encode(model), key=encoder.fingerprint())
    for _ in range(3):
        SearchSession(model, gallery).ask("a", "is red")
    assert asked == [model]
    other = fc.ComposedEncoder(live(seed=1), combiner())
    for _ in range(2):
        assert "mean nothing here" in own_error(SearchSession, other, gallery)


def test_a_model_that_was_trained_since_needs_another_gallery() -> None:
    encoder = live()
    model = fc.ComposedEncoder(encoder, combiner())
    gallery = fc.Gallery(IDS, encode(model), key=encoder.fingerprint())
    SearchSession(model, gallery)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    weight = next(encoder.parameters())
    weight.data = weight + 1
    for _ in range(2):
        assert "mean nothing here" in own_error(SearchSession, model, gallery)
    encoder.load_state_dict(state, assign=True)
    SearchSession(model, gallery)
    changed = {name: value + 1 for name, value in state.items()}
    encoder.load_state_dict(changed, assign=True)
    assert "mean nothing here" in own_error(SearchSession, model, gallery)
    encoder.load_state_dict(state, assign=True)
    SearchSession(model, gallery)
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    assert "mean nothing here" in own_error(SearchSession, model, gallery)


def test_an_encoder_may_hold_a_sparse_matrix() -> None:
    encoder = live()
    encoder.register_buffer("adjacency", torch.eye(3).to_sparse())
    session = SearchSession(fc.ComposedEncoder(encoder, combiner()), GALLERY)
    expected = SearchSession(MODEL, GALLERY).ask("a", "is red")
    assert session.ask("a", "is red").ids == expected.ids

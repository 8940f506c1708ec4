"""Search sessions: what each round means, history, likes; equal to encoding the files again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokened
import torch
from composing import combiner, live, load
from PIL import Image
from raising import own_error

import fusecomp as fc
from fusecomp.fusions import ARTEMIS
from fusecomp.images import ImageLoader
from fusecomp.retrieval import (
    Judgement,
    LastRound,
    MeanOfRounds,
    Rocchio,
    Round,
    SearchSession,
    search,
)

IDS = [f"image {number}" for number in range(12)]
MODEL = fc.ComposedEncoder(live(), combiner())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("images")
    for number, name in enumerate(IDS):
        (root / name).write_text(f"{number} {number * number % 7} {3 - number}")
    return root.joinpath


@pytest.fixture(scope="module")
def gallery(path: Callable[[str], Path]) -> fc.Gallery:
    kinds = {"kind": ["dress", "shirt"] * 6}
    return fc.Gallery.build(MODEL, IDS, path, attributes=kinds)


def test_a_stored_image_a_file_and_a_loaded_image_are_one_reference(
    gallery: fc.Gallery, path: Callable[[str], Path]
) -> None:
    expected = MODEL.encode_query([path(IDS[3])], ["is red"])
    for reference in (IDS[3], path(IDS[3]), load(path(IDS[3]))):
        session = SearchSession(MODEL, gallery)
        hits = session.ask(reference, "is red", k=5, exclude_seen=False)
        assert torch.equal(session.query, expected)
        assert hits.ids == gallery.search(expected, 5)[0].ids


def test_an_image_opened_by_pillow_is_a_reference(path: Callable[[str], Path]) -> None:
    def mean(opened: Any) -> torch.Tensor:
        return torch.tensor(opened.getpixel((0, 0))) / 255

    encoder = fc.DualEncoder(torch.nn.Identity(), lambda texts: torch.ones(1, 3), ImageLoader(mean))
    opened = Image.new("RGB", (4, 4), (255, 51, 0))
    file = path("opened.png")
    opened.save(file)
    session = SearchSession(
        fc.ComposedEncoder(encoder, fc.Sum()), fc.Gallery(["a"], torch.eye(3)[:1])
    )
    for reference in (opened, file, np.asarray(opened)):
        session.ask(reference, "is red")
    first, *others = (step.query for step in session.history if isinstance(step, Round))
    assert [torch.equal(query, first) for query in others] == [True, True]
    with pytest.raises(ValueError, match="load_image of this encoder does not take <object"):
        session.ask(object(), "is red")  # type: ignore[arg-type]


def test_text_alone_and_image_alone_search_by_their_own_features(gallery: fc.Gallery) -> None:
    images = MODEL.encode_gallery(torch.stack([load_again(gallery, name) for name in IDS]))
    session = SearchSession(MODEL, gallery)
    found = session.ask(text="is long", k=12)
    with torch.no_grad():
        MODEL.eval()
        words = MODEL.encoder.encode_text(["is long"])
        MODEL.train()
    assert found.ids == [IDS[row] for row in search(words, images, 12)[1][0].tolist()]
    near = session.ask(IDS[4], k=12)
    nearest = search(images[4:5], images, 12, exclude=torch.tensor([4]))[1][0].tolist()
    assert near.ids == [IDS[row] for row in nearest if row >= 0]


def load_again(gallery: fc.Gallery, name: str) -> torch.Tensor:
    number = IDS.index(name)
    return torch.tensor([number, number * number % 7, 3 - number], dtype=torch.float32)


def test_rounds_and_judgements_by_hand(gallery: fc.Gallery) -> None:
    session = SearchSession(MODEL, gallery, Rocchio(1, 0.5, 0.25, MeanOfRounds()))
    session.ask(IDS[0], "is red")
    session.ask(IDS[1], "is long", weight=-0.5)
    session.like(IDS[2])
    session.dislike(IDS[3])
    session.like(IDS[4])
    session.like(IDS[3])
    session.dislike(IDS[3])
    one, two = (
        MODEL.compose(gallery.features_of([IDS[n]]), encode(text))
        for n, text in enumerate(["is red", "is long"])
    )
    unit = torch.nn.functional.normalize
    good = unit(gallery.features_of([IDS[2], IDS[4]])).mean(0)
    bad = unit(gallery.features_of([IDS[3]]))[0]
    expected = unit(unit(one - 0.5 * two) + 0.5 * good - 0.25 * bad)
    torch.testing.assert_close(session.query, expected)


def encode(text: str) -> torch.Tensor:
    with torch.no_grad():
        return MODEL.eval().encoder.encode_text([text])


def test_what_was_seen_is_left_out_and_attributes_filter(gallery: fc.Gallery) -> None:
    session = SearchSession(MODEL, gallery)
    session.ask(IDS[0], "is red")
    session.ask(IDS[1], "is long")
    session.like(IDS[2])
    session.dislike(IDS[3])
    assert {*IDS} - {*session.results(12).ids} == {*IDS[:4]}
    assert {*session.results(12, exclude_seen=False).ids} == {*IDS}
    assert {*session.results(12, where={"kind": "shirt"}).ids} == {*IDS[5::2]}
    assert len(session.results(3).ids) == 3


def test_undo_takes_steps_back_to_the_start(gallery: fc.Gallery) -> None:
    session = SearchSession(MODEL, gallery)
    states = []
    for act in (
        lambda: session.ask(IDS[0], "is red"),
        lambda: session.like(IDS[5]),
        lambda: session.dislike(IDS[6]),
        lambda: session.ask(text="is long"),
    ):
        act()
        states.append(session.results(12))
    assert [type(step) for step in session.history] == [Round, Judgement, Judgement, Round]
    shown = "Round('image 0', 'is red', weight=1), Judgement('image 5', liked=True), Judgement("
    assert repr(session.history).startswith("(" + shown), session.history
    assert repr(session).startswith("SearchSession(2 rounds, 2 judgements; Gallery(12 images")
    for hits in reversed(states):
        again = session.results(12)
        assert again.ids == hits.ids
        assert torch.equal(again.scores, hits.scores)
        last = session.history[-1]
        assert session.undo() is last
    assert session.history == ()
    assert "nothing to undo" in own_error(session.undo)


def test_a_session_goes_on_from_the_history_of_another(gallery: fc.Gallery) -> None:
    session = SearchSession(MODEL, gallery)
    session.ask(IDS[0], "is red")
    session.like(IDS[5])
    session.ask(text="is long")
    again = SearchSession(MODEL, gallery, history=session.history)
    assert torch.equal(again.query, session.query)
    assert again.to_json() == session.to_json()
    before = SearchSession(MODEL, gallery, history=session.history[:2])
    session.undo()
    assert torch.equal(before.query, session.query)
    before.ask(IDS[3], "is blue")
    assert len(session.history) == 2
    assert "history must be the history of a session" in own_error(
        lambda given: SearchSession(MODEL, gallery, history=given), session
    )
    for wrong in ([session], ["is red"], (*session.history[:1], None)):
        assert "history must hold rounds and judgements" in own_error(
            lambda given: SearchSession(MODEL, gallery, history=given), wrong
        )


def test_a_session_may_begin_with_a_judgement(gallery: fc.Gallery) -> None:
    session = SearchSession(MODEL, gallery)
    for read in (session.results, lambda: session.query):
        assert "nothing to search for yet" in own_error(read)
    session.dislike(IDS[1])
    assert "nothing to search for yet" in own_error(session.results)
    session.like(IDS[2])
    assert IDS[1] not in session.results(12).ids
    assert len(session.results(12).ids) == 10


def test_a_like_that_was_taken_back_by_a_dislike_is_no_wish(gallery: fc.Gallery) -> None:
    session = SearchSession(MODEL, gallery)
    session.like(IDS[2])
    session.dislike(IDS[2])
    for read in (session.results, lambda: session.query):
        assert "nothing to search for yet" in own_error(read)


WRONG: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda s: s.ask(), ValueError, "needs a reference, a text or both"),
    (
        lambda s: s.ask("nobody", "is red"),
        ValueError,
        "'nobody' is not in the gallery of 12 images",
    ),
    (lambda s: s.ask(Path("nothing.png"), "is red"), FileNotFoundError, "nothing.png"),
    (lambda s: s.ask(7, "is red"), ValueError, "load_image of this encoder does not take 7"),
    (lambda s: s.ask(IDS[0], " \n"), ValueError, r"the text ' \\n' says nothing"),
    (
        lambda s: s.ask(IDS[0], "\u200b\u2060"),
        ValueError,
        r"the text '\\u200b\\u2060' says nothing",
    ),
    (lambda s: s.ask(IDS[0], "\ud83d"), ValueError, r"holds half of a character.*'\\ud83d'"),
    (lambda s: s.ask(IDS[0], 3), TypeError, "text must be a string, got 3"),
    (lambda s: s.ask(IDS[0], "is red", float("nan")), ValueError, "weight must be finite"),
    (lambda s: s.ask(IDS[0], "is red", "1"), ValueError, "weight must be an int or a float"),
    (lambda s: s.ask(IDS[0], "is red", 0), ValueError, "must be positive, got 0.0"),
    (lambda s: s.ask(IDS[0], "is red", k=0), ValueError, "k must be a whole number"),
    (lambda s: s.results(exclude_seen="no"), ValueError, "exclude_seen must be True or False"),
    (lambda s: s.ask(torch.tensor([torch.nan, 0, 0]), "is red"), ValueError, "holds NaN"),
    (lambda s: s.like("nobody"), ValueError, "'nobody' is not in the gallery"),
    (lambda s: s.dislike(3), ValueError, r"image_ids\[0\] is 3"),
    (lambda s: s.results(where={"colour": "red"}), ValueError, "unknown attribute 'colour'"),
    (lambda s: s.results(where="red"), TypeError, "where must be a mapping .*, got 'red'"),
]


@pytest.mark.parametrize(("act", "kind", "message"), WRONG)
def test_what_fails_says_why_and_leaves_the_session_as_it_was(
    gallery: fc.Gallery, act: Callable[[SearchSession], Any], kind: type[Exception], message: str
) -> None:
    session = SearchSession(MODEL, gallery)
    session.ask(IDS[0], "is red")
    before, hits = session.history, session.results(12).ids
    with pytest.raises(kind, match=message):
        act(session)
    assert session.history is before
    assert session.results(12).ids == hits


def test_likes_that_a_strategy_does_not_take_are_refused_at_once(gallery: fc.Gallery) -> None:
    for strategy in (LastRound(), MeanOfRounds()):
        session = SearchSession(MODEL, gallery, strategy)
        for judge in (session.like, session.dislike):
            assert "takes no likes and dislikes" in own_error(judge, IDS[0])
        assert session.history == ()


def test_the_wrong_parts_are_refused(gallery: fc.Gallery) -> None:
    parts: Any = (gallery, MODEL)
    assert "model must be a ComposedEncoder" in own_error(SearchSession, *parts)
    parts = (MODEL, IDS)
    assert "gallery must be a Gallery" in own_error(SearchSession, *parts)
    parts = (MODEL, gallery, "mean")
    assert "strategy must be a strategy" in own_error(SearchSession, *parts)
    assert "strategy is the class" in own_error(SearchSession, MODEL, gallery, MeanOfRounds)
    other = fc.ComposedEncoder(live(seed=1), combiner())
    assert "whose queries mean nothing here" in own_error(SearchSession, other, gallery)


def test_late_interaction_goes_by_the_last_round_alone(path: Callable[[str], Path]) -> None:
    torch.manual_seed(0)
    late = fc.ComposedEncoder(live(), ARTEMIS(4))
    gallery = fc.Gallery.build(late, IDS, path)
    for strategy in (MeanOfRounds(), Rocchio(rounds=MeanOfRounds())):
        assert "adds queries up" in own_error(SearchSession, late, gallery, strategy)
    session = SearchSession(late, gallery)
    session.ask(IDS[0], "is long")
    hits = session.ask(IDS[1], "is red")
    query = late.encode_query([path(IDS[1])], ["is red"])
    assert torch.equal(session.query, query)
    assert hits.ids == gallery.search(query, 10, exclude=[IDS[:2]])[0].ids
    for act in (lambda: session.ask(text="is red"), lambda: session.ask(IDS[2])):
        assert "similarity of its own" in own_error(act)
    assert "cannot be added to queries" in own_error(session.like, IDS[2])


def cached_model(fusion: fc.Fusion) -> fc.ComposedEncoder:
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(12, 4, generator=generator), torch.randn(2, 4, generator=generator)
    encoder = fc.CachedEncoder.from_arrays(IDS, images, ["is red", "is long"], texts)
    return fc.ComposedEncoder(encoder, fusion)


def test_a_cached_encoder_knows_its_texts_and_images_outside_the_gallery() -> None:
    model = cached_model(fc.Sum())
    session = SearchSession(model, fc.Gallery.build(model, IDS[:6]))
    session.ask(IDS[8], "is red")
    assert torch.equal(session.query, model.encode_query([IDS[8]], ["is red"]))
    with pytest.raises(ValueError, match="CachedEncoder looks texts up and cannot encode 'is odd'"):
        session.ask(IDS[0], "is odd")
    assert "no cached features for the image 'nobody'" in own_error(session.ask, "nobody", "is red")
    with pytest.raises(ValueError, match="looks images up, so the reference must be an id"):
        session.ask(Path("file.png"), "is red")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_gallery_may_keep_another_dtype_than_the_encoder_gives(dtype: torch.dtype) -> None:
    model = cached_model(fc.Sum())
    session = SearchSession(model, fc.Gallery.build(model, IDS, dtype=dtype))
    session.ask(IDS[3], "is red")
    expected = model.encode_query([IDS[3]], ["is red"])
    atol = 0 if dtype == torch.float64 else 0.01
    torch.testing.assert_close(session.query, expected, rtol=0, atol=atol)
    session.like(IDS[1])
    session.ask(IDS[2])
    again = SearchSession.from_json(model, session.gallery, session.to_json())
    assert torch.equal(again.query, session.query)
    assert again.results().ids == session.results().ids


def test_a_text_alone_must_be_as_wide_as_the_images() -> None:
    encoder = fc.CachedEncoder.from_arrays(IDS, torch.randn(12, 4), ["is red"], torch.randn(1, 3))
    model = fc.ComposedEncoder(encoder, fc.fusions.Concat(4, 3))
    session = SearchSession(model, fc.Gallery.build(model, IDS))
    session.ask(IDS[0], "is red")
    assert "a text alone [1, 3] and the images' features" in own_error(session.ask, None, "is red")


def test_tokens_of_texts_are_given_and_tokens_of_images_refused() -> None:
    words, patches = tokened.composed("CIRPLANT"), tokened.composed("Everything")
    images = torch.randn(2, 4, dtype=torch.float64)
    gallery = fc.Gallery(["a", "b"], words.encoder.encode_image(images))
    session = SearchSession(words, gallery)
    session.ask(images[1], "word 3")
    assert torch.equal(session.query, words.encode_query(images[1:], ["word 3"]))
    again = SearchSession.from_json(words, gallery, session.to_json())
    assert torch.equal(again.query, session.query)
    assert "a gallery keeps none" in own_error(SearchSession, patches, gallery)


def test_no_call_is_dropped_in_silence_beside_another(gallery: fc.Gallery) -> None:
    class Slow(Rocchio):
        def combine(self, *parts: torch.Tensor) -> torch.Tensor:
            if beside:
                beside.pop()()  # what another thread does meanwhile
            return super().combine(*parts)

    beside: list[Callable[[], Any]] = []
    session = SearchSession(MODEL, gallery, Slow())
    session.ask(IDS[0], "is red")
    for call in (lambda: session.ask(IDS[1], "is red"), lambda: session.like(IDS[2])):
        before = session.history
        beside.append(lambda: session.dislike(IDS[3]))
        with pytest.raises(RuntimeError, match="another thread changed this session meanwhile"):
            call()
        assert session.history[:-1] == before
        judged = session.undo()
        assert isinstance(judged, Judgement) and judged.image_id == IDS[3]

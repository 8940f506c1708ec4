"""Sessions as JSON: the same results again, and nothing but what was written."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composing import combiner, live
from hypothesis import given
from hypothesis import strategies as st
from raising import own_error

import fusecomp as fc
from fusecomp.retrieval import LastRound, MeanOfRounds, Rocchio, SearchSession, Strategy

IDS = [f"image {number}" for number in range(9)]
ENCODER = live()
MODEL = fc.ComposedEncoder(ENCODER, combiner())
IMAGES = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
WIDTH = 4


def make_gallery(names: list[str] = IDS) -> fc.Gallery:
    with torch.no_grad():
        features = MODEL.eval().encoder.encode_image(IMAGES[: len(names)])
    return fc.Gallery(names, features, key=ENCODER.fingerprint())


GALLERY = make_gallery()


MIXED = Rocchio(0.5, 0.25, 0.125, MeanOfRounds())


def make_session(strategy: Strategy = MIXED) -> SearchSession:
    session = SearchSession(MODEL, GALLERY, strategy)
    session.ask(IDS[0], "is red")
    return session


steps = st.one_of(
    st.tuples(st.just("like"), st.sampled_from(IDS)),
    st.tuples(st.just("dislike"), st.sampled_from(IDS)),
    st.tuples(st.just("undo")),
    st.tuples(
        st.just("ask"),
        st.one_of(st.none(), st.sampled_from(IDS), st.integers(0, 8).map(lambda n: IMAGES[n])),
        st.text(min_size=1).filter(str.strip) | st.just("ü ♥ \U0001f600"),
        st.floats(0.1, 10) | st.floats(-0.5, -0.1),
    ),
)


# Characters without width; rounds that cancel out; only negative ones.
REFUSED = ("says nothing", "cancel out", "nothing to undo", "no round has a positive weight")


@given(st.lists(steps, max_size=7))
def test_what_comes_back_is_the_same_session(acts: list[Any]) -> None:
    session = make_session()
    for name, *arguments in acts:
        try:
            getattr(session, name)(*arguments)
        except ValueError as error:
            assert any(reason in str(error) for reason in REFUSED)
    text = session.to_json()
    assert text.isascii()
    again = SearchSession.from_json(MODEL, GALLERY, text, session.strategy)
    assert again.to_json() == text
    for step, expected in zip(again.history, session.history, strict=True):
        for value, wanted in zip(step, expected, strict=True):
            tensors = isinstance(value, torch.Tensor) and isinstance(wanted, torch.Tensor)
            assert torch.equal(value, wanted) if tensors else value == wanted  # type: ignore[arg-type]
    last = {getattr(step, "image_id", None): step for step in session.history}
    if any(getattr(step, "liked", True) for step in last.values()):
        assert torch.equal(again.query, session.query)


def test_uploads_are_kept_as_features_and_paths_are_not_told(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("1 2 3")
    session = make_session(Rocchio())
    session.ask(tmp_path / "secret", "is long")
    text = session.to_json()
    assert "secret" not in text
    (tmp_path / "secret").unlink()
    again = SearchSession.from_json(MODEL, GALLERY, text)
    assert torch.equal(again.query, session.query)
    content = json.loads(text)
    assert {*content} == {"format", "key", "strategy", "steps"}
    assert content["steps"][0] == {"text": "is red", "weight": 1.0, "reference": IDS[0]}
    assert len(content["steps"][1]["features"]) == 4 * -(-4 * WIDTH // 3)


def test_a_session_without_steps_is_one_too() -> None:
    empty = SearchSession(MODEL, GALLERY)
    assert SearchSession.from_json(MODEL, GALLERY, empty.to_json()).history == ()


def features(values: Any, kind: str = "<f4") -> str:
    return b64encode(np.array(values, kind).tobytes()).decode()


ASKED = {"text": "is red", "weight": 1.0, "reference": IDS[0]}
UPLOADED = {"text": "is red", "weight": 1.0, "features": features([1, 2, 3, 4])}
NO_STEPS: list[tuple[Any, str]] = [
    ({**ASKED, "reference": "nobody"}, "'nobody' is not in the gallery of 9 images"),
    ({**ASKED, "reference": "../../etc/passwd"}, "is not in the gallery"),
    ({**ASKED, "reference": 3}, r"steps\[1\]: reference must be .*, got 3"),
    ({**ASKED, "reference": ["a"]}, r"steps\[1\]: reference must be"),
    ({**ASKED, "reference": None, "text": None}, "needs a reference, a text or both"),
    ({**ASKED, "text": 3}, r"steps\[1\]: text must be"),
    ({**ASKED, "text": " "}, "says nothing"),
    ({**ASKED, "text": "\ud800"}, "half of a character"),
    ({**ASKED, "weight": "1"}, r"steps\[1\]: weight must be"),
    ({**ASKED, "weight": True}, r"steps\[1\]: weight must be"),
    ({**ASKED, "weight": None}, r"steps\[1\]: weight must be"),
    ({**ASKED, "weight": 10**400}, "line 1: not valid JSON .*field 'weight'"),
    ({**ASKED, "more": 1}, r"steps\[1\] must have the fields reference, text, weight, got"),
    ({"reference": IDS[0]}, r"steps\[1\] must have the fields"),
    ({**ASKED, **UPLOADED}, r"steps\[1\] must have the fields features, text, weight"),
    ({**UPLOADED, "features": 7}, "features must be str, got 7"),
    ({**UPLOADED, "features": "!!!!"}, "features must be base64 of 4 floats, got '!!!!'"),
    ({**UPLOADED, "features": "é"}, "features must be base64"),
    ({**UPLOADED, "features": ""}, "features must be base64"),
    ({**UPLOADED, "features": features([1, 2, 3])}, "features must be base64 of 4 floats"),
    ({**UPLOADED, "features": features([1, 2, 3, 4, 5])}, "features must be base64 of 4 floats"),
    ({**UPLOADED, "features": features([1, 2], "<f8")[:-1]}, "features must be base64"),
    ({**UPLOADED, "features": features([1, 2, 3, np.nan])}, "features hold NaN or infinity"),
    ({**UPLOADED, "features": features([1, 2, 3, np.inf])}, "features hold NaN or infinity"),
    ({"image": "nobody", "liked": True}, "'nobody' is not in the gallery"),
    ({"image": 3, "liked": True}, r"steps\[1\]: image must be str"),
    ({"image": IDS[0], "liked": 1}, r"steps\[1\]: liked must be bool, got 1"),
    ({"image": IDS[0]}, r"steps\[1\] must have the fields image, liked"),
    ({"image": IDS[0], "liked": True, "text": "x"}, r"steps\[1\] must have the fields"),
    ("ask", r"steps\[1\] must be dict, got 'ask'"),
    (None, r"steps\[1\] must be dict"),
]


@pytest.mark.parametrize(("step", "message"), NO_STEPS)
def test_a_step_that_was_not_written_so_is_refused_by_name(step: Any, message: str) -> None:
    content = json.loads(make_session(Rocchio()).to_json())
    assert SearchSession.from_json(MODEL, GALLERY, json.dumps(content)).history
    content["steps"].append(step)
    with pytest.raises(ValueError, match=message):
        SearchSession.from_json(MODEL, GALLERY, json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "fusecomp.session/2"}, "this is no session, whose format would be"),
        ({"format": None}, "this is no session"),
        ({"key": "weights of another"}, "held with the encoder 'weights of another'"),
        ({"key": 3}, "key must be str"),
        ({"strategy": "LastRound()"}, r"held with the strategy 'LastRound\(\)', pass it as"),
        ({"strategy": ["x"] * 1000}, "held with the strategy"),
        ({"steps": {}}, "steps must be list"),
        ({"more": 1}, "session must have the fields format, key, strategy, steps, got"),
    ],
)
def test_another_session_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    content = json.loads(make_session(Rocchio()).to_json())
    with pytest.raises(ValueError, match=message):
        SearchSession.from_json(MODEL, GALLERY, json.dumps(content | changes))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "null", "{", '{"a": 1, "a": 2}', "[" * 100_000, '{"weight": NaN}', None, 3],
)
def test_no_session_at_all_is_refused(text: Any) -> None:
    message = own_error(SearchSession.from_json, MODEL, GALLERY, text)
    assert "session" in message


def test_another_gallery_or_strategy_of_ones_own(tmp_path: Path) -> None:
    session = make_session(LastRound())
    session.ask(IDS[8], "is long")
    text = session.to_json()
    with pytest.raises(ValueError, match="'image 8' is not in the gallery of 5 images"):
        SearchSession.from_json(MODEL, make_gallery(IDS[:5]), text, LastRound())
    more = make_gallery()
    more.remove(IDS[4:7])
    again = SearchSession.from_json(MODEL, more, text, LastRound())
    assert torch.equal(again.query, session.query)


def test_features_of_double_precision_come_back_whole() -> None:
    model = fc.ComposedEncoder(live().double(), combiner().double())
    with torch.no_grad():
        gallery = fc.Gallery(IDS, model.eval().encoder.encode_image(IMAGES.double()))
    session = SearchSession(model, gallery)
    session.ask(IMAGES[3].double())
    again = SearchSession.from_json(model, gallery, session.to_json())
    assert torch.equal(again.query, session.query)
    assert again.query.dtype == torch.float64


def test_a_strategy_without_a_repr_is_known_by_its_settings() -> None:
    class Mine:
        adds_rounds = False

        def __init__(self, bias: float) -> None:
            self.bias = bias

        def combine(self, queries: Any, weights: Any, liked: Any, disliked: Any) -> Any:
            return queries[-1:] + self.bias

    session = SearchSession(MODEL, GALLERY, Mine(0.5))
    session.ask(IDS[0], "is red")
    again = SearchSession.from_json(MODEL, GALLERY, session.to_json(), Mine(0.5))
    assert torch.equal(again.query, session.query)
    assert "held with the strategy" in own_error(
        SearchSession.from_json, MODEL, GALLERY, session.to_json(), Mine(0.25)
    )

"""The page's server: what it answers, and whom and what it refuses."""

import copy
import json
import pickle
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
import torch
from demo_site import Site, running
from PIL import Image

import fusecomp as fc
from fusecomp.retrieval import MeanOfRounds, Rocchio, Strategy

pytest.importorskip("starlette", reason="needs the extra demo")
pytest.importorskip("uvicorn", reason="needs the extra demo")
from demo import app

MEAN = Rocchio(rounds=MeanOfRounds())


def asked(reference: str | None, text: str | None, weight: float = 1.0) -> dict[str, Any]:
    return {"text": text, "weight": weight, "reference": reference}


def session_of(site: Site, strategy: Strategy = MEAN) -> fc.SearchSession:
    answers = site.state.answers
    return fc.SearchSession(answers.model, answers.gallery, strategy)


def test_a_search_is_that_of_the_session(site: Site) -> None:
    one, two = site.state.answers.names[:2]
    session = session_of(site)
    session.ask(one, "is blue")
    session.ask(None, "has long sleeves", weight=0.5)
    session.dislike(two)
    hits = session.results(12)
    steps = json.loads(session.to_json())["steps"]
    found = site.search(*steps, strategy=repr(MEAN)).json
    assert [result["id"] for result in found["results"]] == hits.ids
    assert [result["row"] for result in found["results"]] == hits.positions.tolist()
    assert [result["score"] for result in found["results"]] == hits.scores.tolist()
    rows, fusion = site.state.answers.rows, site.state.answers.model.fusion
    with torch.no_grad():
        texts = session.model.encoder.encode_text(["is blue"])
        gate = float(fusion.gate(session.history[0].features, texts))
    assert [step["row"] for step in found["steps"]] == [rows[one], None, rows[two]]
    assert found["steps"][0]["gate"] == gate
    assert found["steps"][1]["gate"] is None
    assert (found["target"], found["rank"]) == (None, None)


def test_a_model_on_the_page_is_copied_and_pickled_as_any_other(site: Site) -> None:
    model = site.state.answers.model
    found = pickle.loads(pickle.dumps(model.fusion))
    for fusion in (copy.deepcopy(model).fusion, found):
        for name, weight in model.fusion.state_dict().items():
            assert torch.equal(fusion.state_dict()[name], weight)


@pytest.mark.parametrize("deep", [False, True])
def test_a_round_is_computed_once(site: Site, monkeypatch: pytest.MonkeyPatch, deep: bool) -> None:
    answers, calls = site.state.answers, Counter[str]()
    monkeypatch.setattr("demo.answers.FIRST_RANKS", 12 if deep else 1000)

    def counted(name: str, call: Any) -> Any:
        def count(*given: Any, **named: Any) -> Any:
            calls[name] += 1
            return call(*given, **named)

        return count

    fusion, text = answers.model.fusion, "is computed once" + " or twice" * deep
    ids = session_of(site, Rocchio()).ask(answers.names[3], text, k=99).ids
    known = [task.target_id for task in answers.tasks]
    number = next(n for n, name in enumerate(known) if name in ids[12:] or not deep)
    counts = {"text": (answers.model.encoder, "encode_text"), "search": (answers.gallery, "search")}
    counts |= {
        "mixture": (fusion.combiner_layer, "forward"),
        "gate": (fusion.dynamic_scalar, "forward"),
    }
    for name, (owner, method) in counts.items():
        monkeypatch.setattr(owner, method, counted(name, getattr(owner, method)))
    found = site.search(asked(answers.names[3], text), task=number).json
    assert calls == {"text": 1, "mixture": 1, "gate": 1, "search": 1 + deep}
    assert found["rank"] == ids.index(answers.tasks[number].target_id) + 1


def test_a_task_changes_no_bit_of_the_results(site: Site) -> None:
    answers = site.state.answers
    for task, target in enumerate(answers.tasks):
        steps = [asked(answers.names[task], "is blue"), asked(None, "is longer")]
        for more in ([], [{"image": target.target_id, "liked": True}]):
            with_task = site.search(*steps, *more, task=task, strategy=repr(MEAN)).json
            without = site.search(*steps, *more, strategy=repr(MEAN)).json
            assert with_task["results"] == without["results"]
            assert with_task["steps"] == without["steps"]


def test_an_upload_is_the_file_of_the_gallery(site: Site) -> None:
    name = site.state.answers.names[5]
    upload = site.ask("/upload", site.state.answers.path(name).read_bytes())
    assert upload.status == 200
    step = {"text": "is red", "weight": 1.0, **upload.json}
    by_file = site.search(step).json["results"]
    by_id = site.search(asked(name, "is red")).json["results"]
    # Only the reference itself is left out of what its id finds.
    assert [r["id"] for r in by_file if r["id"] != name][:11] == [r["id"] for r in by_id][:11]


def test_the_rank_of_a_task_leaves_out_what_was_seen(site: Site) -> None:
    answers = site.state.answers
    task = answers.tasks[3]
    assert site.ask("/tasks/3").json == {
        "id": task.reference_id,
        "row": answers.rows[task.reference_id],
        "texts": [*task.texts],
    }
    session = session_of(site, Rocchio())
    ids = session.ask(task.reference_id, task.texts[0], k=len(answers.gallery)).ids
    found = before = site.search(asked(task.reference_id, task.texts[0]), task=3).json
    assert (found["target"], found["rank"]) == (task.target_id, ids.index(task.target_id) + 1)
    liked = {"image": task.target_id, "liked": True}
    found = site.search(asked(task.reference_id, task.texts[0]), liked, task=3).json
    assert found["rank"] < before["rank"]  # judged, but still ranked
    assert task.target_id not in [result["id"] for result in found["results"]]


def test_a_thumbnail_is_small_and_made_once(site: Site) -> None:
    path = site.ask("/state").json["thumbnails"]
    site.state.answers.thumbnail.cache_clear()
    first, second = (site.ask(f"{path}7") for _ in range(2))
    asked = site.state.answers.thumbnail.cache_info()
    assert first.body == second.body
    assert (asked.hits, asked.misses) == (1, 1)
    assert max(Image.open(BytesIO(first.body)).size) <= 200
    assert (first.headers["content-type"], first.headers["x-content-type-options"]) == (
        "image/jpeg",
        "nosniff",
    )


def test_random_images_are_of_the_gallery(site: Site) -> None:
    found = site.ask("/sample").json["results"]
    assert len({result["id"] for result in found}) == 24
    assert all(site.state.answers.rows[r["id"]] == r["row"] for r in found)


def test_the_page_allows_nothing_from_outside(site: Site) -> None:
    page = site.ask("/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; ")
    assert policy.count("'sha256-") == 2
    assert "unsafe" not in policy
    text = page.body.decode()
    for forbidden in ("http://", "https://", " style=", " onclick=", "innerHTML", "eval("):
        assert forbidden not in text


# Who may ask.


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "a@b:c"])
def test_other_hosts_are_refused(site: Site, host: str) -> None:
    for path, body in (("/", None), ("/state", None), ("/search", {})):
        reply = site.ask(path, body, Host=host)
        assert reply.status == 403
        assert b"session" not in reply.body


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "http://["]
)
def test_pages_of_others_may_not_post(site: Site, origin: str) -> None:
    reply = site.ask("/upload", b"x", Origin=origin)
    assert (reply.status, "may not ask" in reply.json["error"]) == (403, True)


def test_the_own_page_may_post_by_each_of_its_names(site: Site) -> None:
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{site.port}"
        step = asked(None, "is blue")
        given = {"session": site.ask("/state").json["session"] | {"steps": [step]}}
        wish = given | {"task": None, "count": 3}
        assert site.ask("/search", wish, Host=host, Origin=f"http://{host}").status == 200


def test_a_form_of_another_page_cannot_search(site: Site) -> None:
    assert site.ask("/search", b"{}", Content_Type="text/plain").status == 415


# What is refused.


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/thumbnails/../../etc/passwd",
        "/thumbnails/START/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/thumbnails/START/-1",
        "/thumbnails/START/99999999999999999999",
        "/thumbnails/START/1.5",
        "/thumbnails/other/1",
        "/tasks/x",
        "/page.html",
    ],
)
def test_rows_are_numbers_and_never_paths(site: Site, path: str) -> None:
    start = site.ask("/state").json["thumbnails"].strip("/").split("/")[1]
    reply = site.ask(path.replace("START", start))
    assert (reply.status, [*reply.json]) == (404, ["error"])


HOSTILE: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "no JSON of a session"),
    "not UTF-8": (b"\xff\xfe", "no JSON of a session"),
    "another kind": (b"[]", "no JSON of a session"),
    "deep": (b"[" * 60_000, "no JSON of a session"),
    "steps of another kind": ({"steps": 7}, "no JSON of a session"),
    "a step of another kind": ({"steps": ["x"]}, "no JSON of a session"),
    "no steps": ({"steps": []}, "nothing to search for yet"),
    "unknown id": ({"steps": [asked("../../etc/passwd", "x")]}, "is not in the gallery"),
    "blank text": ({"steps": [asked(None, "  ")]}, "says nothing"),
    "text of another kind": ({"steps": [asked(None, 7)]}, "text must be"),  # type: ignore[arg-type]
    "half a character": ({"steps": [asked(None, "\ud800")]}, "half of a character"),
    "long text": ({"steps": [asked(None, "x" * 301)]}, "301 characters; 300 are the most"),
    "a long number for a text": ({"steps": [asked(None, 10**400)]}, "401 characters; 300 are"),  # type: ignore[arg-type]
    "many steps": ({"steps": [asked(None, "x")] * 51}, "51 steps; 50 are the most"),
    "NaN": ({"steps": [asked(None, "x", float("nan"))]}, "must be a number up to 100"),
    "too large a number": ({"steps": [asked(None, "x", 10**400)]}, "must be a number up to 100"),
    "no weight": ({"steps": [{"text": "x", "reference": None}]}, "must have the fields"),
    "a bool for a weight": ({"steps": [asked(None, "x", True)]}, "must be a number up to 100"),
    "odd features": ({"steps": [{"features": "AA==", "text": "x", "weight": 1}]}, "base64 of 16"),
    "another key": ({"key": "weights of others"}, "held with another model"),
    "another strategy": ({"strategy": "__import__('os')"}, "there is no strategy"),
    "a strategy of another kind": ({"strategy": ["x"]}, "there is no strategy"),
    "another format": ({"format": "x"}, "this is no session"),
    "a field more": ({"more": 1}, "must have the fields"),
}


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=[*HOSTILE])
def test_hostile_sessions_are_refused_in_words(site: Site, change: Any, message: str) -> None:
    empty = site.ask("/state").json["session"] | {"steps": [asked(None, "x")]}
    wish = {"session": empty | change, "task": None, "count": 3} if type(change) is dict else change
    reply = site.ask("/search", wish, Content_Type="application/json")
    assert reply.status == 422
    assert message in reply.json["error"]
    assert site.search(asked(None, "is blue")).status == 200


@pytest.mark.parametrize("wish", [{"count": 61}, {"count": True}, {"task": -1}, {"task": "0"}])
def test_numbers_are_in_their_range(site: Site, wish: dict[str, Any]) -> None:
    given = site.ask("/state").json["session"] | {"steps": [asked(None, "x")]}
    assert site.ask("/search", {"session": given, "task": 1, "count": 3} | wish).status == 422


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size, and has no pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (head, b"IDAT" + zlib.compress(b""), b"IEND")
    parts = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


UPLOADS = {
    "nothing": (b"", "the file is empty"),
    "HTML": (b"<script>alert(1)</script>", "not an image that Pillow can open"),
    "a bomb": (png(50_000, 50_000), "decompression bomb"),
    "more pixels than the limit": (png(12_000, 12_000), "pixels are more than"),
    "torn": (png(100, 100), "the upload cannot be read"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is EPS"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("content", "message"), UPLOADS.values(), ids=[*UPLOADS])
def test_odd_uploads_are_refused_in_words(site: Site, content: bytes, message: str) -> None:
    reply = site.ask("/upload", content)
    assert (reply.status, message in reply.json["error"]) == (422, True), reply.json


def test_a_body_ends_at_its_limit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.LARGEST, "upload", 5000)
    parts: Iterator[bytes] = iter([b"x" * 3000] * 2)  # sent in chunks, without a length
    for body in (b"x" * 5001, parts):
        reply = site.ask("/upload", body)
        assert (reply.status, reply.json["error"]) == (413, "that is more than 4 KiB")
    monkeypatch.setitem(app.LARGEST, "search", 100)
    assert site.search(asked(None, "x")).status == 413


def test_a_crowd_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.MOST, "search", 3)
    go = threading.Event()

    class Slow:
        def task(self, number: int) -> dict[str, int]:
            go.wait(60)
            return {"number": number}

    state = app.State(Slow())  # type: ignore[arg-type]
    found: list[int] = []
    with running(state) as site:

        def visit(number: int) -> None:
            found.append(site.ask(f"/tasks/{number}").status)

        crowd = [threading.Thread(target=visit, args=(number,)) for number in range(8)]
        for visitor in crowd:
            visitor.start()
        while len(found) < 5:
            go.wait(0.01)
        go.set()
        for visitor in crowd:
            visitor.join()
    assert sorted(found) == [200] * 3 + [503] * 5

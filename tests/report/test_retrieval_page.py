"""The page of results: what it holds, and that a browser shows and filters it."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluations import random_evaluation
from PIL import Image

import fusecomp as fc
from fusecomp.datasets import CIRR, FashionIQ, TripletTable
from fusecomp.evaluation import compute_metrics, describe_protocol
from fusecomp.report import PageOptions, retrieval_page


@pytest.fixture
def data(tiny_fashioniq: Path) -> FashionIQ:
    """With real images, one large, all but one."""
    data = FashionIQ(tiny_fashioniq, "val")
    for number, image_id in enumerate(data.image_ids):
        if image_id != "Dval00":
            size = (400, 600) if image_id == "Dval01" else (20, 30)
            Image.new("RGB", size, (5 * number, 0, 200)).save(data.path(image_id))
    return data


@dataclass
class Card:
    """One query of the page."""

    task: str
    kinds: list[str]
    figures: list[tuple[str, str]] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    text: str = ""
    hidden: bool = False
    loaded: int = 0


class Page(HTMLParser):
    """The page, taken apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cards: list[Card] = []
        self.images: dict[str, str] = {}
        self.missing: set[str] = set()
        self.values: dict[str, list[str]] = {}
        self.requests: list[str] = []
        self.text = ""
        self._numbers: dict[str, int] = {}
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag not in ("meta", "img", "input", "br"):
            self._open.append((tag, found))
        self.requests += [v or "" for n, v in attributes if n in ("src", "href", "srcset", "data")]
        if tag == "input":
            self.values.setdefault(found["name"] or "", []).append(found["value"] or "")
        if tag == "article":
            kinds = (found["data-kinds"] or "").split()
            self.cards.append(Card(found["data-task"] or "", kinds, hidden="hidden" in found))
        if tag == "figure":
            self._kind = found["class"] or ""
        if tag == "img":
            name = found["alt"] or ""
            self.cards[-1].figures.append((name, self._kind))
            self.cards[-1].loaded += "src" in found
            self._numbers[name] = int(found["data-image"] or "")
        if tag == "div" and "title" in found:  # in the place of an image
            name = found["title"] or ""
            self.missing.add(name)
            self.cards[-1].figures.append((name, self._kind))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open[-1] if self._open else ("", {})
        if attributes.get("id") == "images":
            uris = json.loads(data)
            self.images = {name: uris[number] for name, number in self._numbers.items()}
            assert len(list(filter(None, uris))) == len(self.images)
        elif tag == "figcaption":
            self.cards[-1].captions.append(data)
        elif tag == "div" and "title" in attributes:
            return
        elif any(name == "article" for name, _ in self._open) and data.strip():
            self.cards[-1].text += f"{data}\n"
        elif tag not in ("script", "style"):
            self.text += data


def written(
    path: Path, evaluation: fc.Evaluation, data: Any, gates: Any = None, **options: Any
) -> Page:
    retrieval_page(evaluation, data, path / "page.html", PageOptions(**options), gates=gates)
    return Page((path / "page.html").read_text())


def test_a_file_name_that_is_not_utf8_is_spelled_out(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in (b"a.png", b"b.png", b"caf\xe9.png"):
        Image.new("RGB", (8, 8)).save(images / os.fsdecode(name))
    (tmp_path / "mine.csv").write_text("reference,text,target\na,is b,b\n")
    data = TripletTable(tmp_path / "mine.csv", images)
    page = written(tmp_path, random_evaluation(data), data)
    shown = {name for card in page.cards for name, _ in card.figures}
    assert shown == set(page.images) == {"a", "b", "caf\\udce9.png"}


def test_it_shows_what_was_found(data: FashionIQ, tmp_path: Path) -> None:
    evaluation = random_evaluation(data)
    page = written(tmp_path, evaluation, data, top=3)
    assert len(page.cards) == 24
    shown = iter(page.cards)
    for number, ranking in enumerate(evaluation.ranking.values()):
        assert ranking.ranks is not None
        for position in ranking.ranks.argsort(stable=True).tolist():
            card, query = next(shown), ranking.task.queries[position]
            rank = int(ranking.ranks[position])
            assert card.task == str(number)
            found = ranking.top_ids()[position][:3]
            expected = [(image_id, "target" * (image_id == query.target_id)) for image_id in found]
            if rank > 3:
                expected.append((query.target_id or "", "target beyond"))
            assert card.figures == [(query.reference_id, ""), *expected]
            assert query.texts[0] in card.text
            assert query.query_id in card.text
            assert f"target at rank {rank}" in card.text
            scores = [f"{n + 1} · {s:.3f}" for n, s in enumerate(ranking.scores[position, :3])]
            assert card.captions[:4] == ["reference", *scores]


def test_the_scores_stand_with_their_protocol(data: FashionIQ, tmp_path: Path) -> None:
    evaluation = random_evaluation(data)
    page = written(tmp_path, evaluation, data)
    assert describe_protocol(evaluation.protocol) in page.text
    assert "dress: 8 queries in 12 images" in page.text
    for value in evaluation.values():
        assert f"{value:.2f}" in page.text


def test_each_kind_and_task_has_so_many_queries(data: FashionIQ, tmp_path: Path) -> None:
    evaluation = random_evaluation(data)
    page = written(tmp_path, evaluation, data, each=2)
    assert page.values == {"show": ["random", "best", "worst"], "task": ["all", "0", "1", "2"]}
    for task, ranking in enumerate(evaluation.ranking.values()):
        assert ranking.ranks is not None
        ranks = sorted(ranking.ranks.tolist())
        for kind, expected in (("best", ranks[:2]), ("worst", ranks[-2:]), ("random", None)):
            cards = [c for c in page.cards if c.task == str(task) and kind in c.kinds]
            places = [int(re.findall(r"at rank (\d+)", card.text)[0]) for card in cards]
            assert len(places) == 2
            assert expected is None or places == expected
    assert written(tmp_path, evaluation, data, each=2, seed=0).cards == page.cards
    others = [written(tmp_path, evaluation, data, each=2, seed=s).cards for s in range(1, 4)]
    assert any(cards != page.cards for cards in others)


def test_a_target_that_was_left_out_is_the_worst(data: FashionIQ, tmp_path: Path) -> None:
    evaluation = random_evaluation(data)
    first = evaluation.ranking["dress"]
    assert first.ranks is not None
    ranks = first.ranks.clone()
    ranks[5] = -1
    evaluation = compute_metrics(replace(evaluation.ranking, tasks=[replace(first, ranks=ranks)]))
    page = written(tmp_path, evaluation, data, each=1)
    (card,) = (card for card in page.cards if "worst" in card.kinds)
    assert "target left out of the ranking" in card.text
    assert "dress/5" in card.text


def test_images_are_in_the_page_once_and_small(data: FashionIQ, tmp_path: Path) -> None:
    page = written(tmp_path, random_evaluation(data), data)
    shown = {image_id for card in page.cards for image_id, _ in card.figures}
    assert shown == {*page.images, "Dval00"}
    assert page.missing == {"Dval00"}
    for image_id, uri in page.images.items():
        head, content = uri.split(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert image.size == ((96, 144) if image_id == "Dval01" else (20, 30))
            red, _, blue = image.convert("RGB").getpixel((10, 15))  # type: ignore[misc]
        number = data.image_ids.index(image_id)
        assert (red, blue) == pytest.approx((5 * number, 200), abs=6)


def test_nothing_comes_from_outside(data: FashionIQ, tmp_path: Path) -> None:
    page = written(tmp_path, random_evaluation(data), data)
    text = (tmp_path / "page.html").read_text()
    assert page.requests == []
    assert not re.search(r"https?://|url\(|@import|fetch\(|<link|<iframe", text)
    assert "default-src 'none'; img-src data:;" in text


HOSTILE = "</script><script>document.title='taken'</script><b>&amp;\"'$title"


@pytest.mark.parametrize("image_id", ["Dval00", "Dval01"])
def test_texts_and_names_cannot_break_out(data: FashionIQ, tmp_path: Path, image_id: str) -> None:
    evaluation = random_evaluation(data)
    found = evaluation.ranking["dress"]
    renamed = {image_id: HOSTILE}
    queries = [
        replace(
            query,
            texts=(HOSTILE,),
            query_id=f"{HOSTILE}{row}",
            target_id=renamed.get(str(query.target_id), query.target_id),
        )
        for row, query in enumerate(found.task.queries)
    ]
    gallery = [renamed.get(name, name) for name in found.task.gallery]
    task = replace(found.task, name=HOSTILE, queries=queries, gallery=gallery)
    evaluation = compute_metrics(replace(evaluation.ranking, tasks=[replace(found, task=task)]))

    class Renamed:
        def path(self, name: str) -> Path:
            return data.path(image_id if name == HOSTILE else name)

    page = written(tmp_path, evaluation, Renamed(), title=HOSTILE)
    text = (tmp_path / "page.html").read_text()
    assert text.count("<script") == 2
    assert HOSTILE in (page.missing if image_id == "Dval00" else page.images)
    assert all(card.text.count(HOSTILE) == 2 for card in page.cards)
    assert page.text.count(HOSTILE) >= 2


def test_one_task_without_a_name_has_no_filter(tiny_cirr: Path, tmp_path: Path) -> None:
    data = CIRR(tiny_cirr, "val")
    page = written(tmp_path, random_evaluation(data), data, each=3)
    assert page.values["task"] == ["all", "0"]
    assert "<fieldset hidden><legend>category" in (tmp_path / "page.html").read_text()
    assert {card.task for card in page.cards} == {"0"}


def test_gates_are_shown(data: FashionIQ, tmp_path: Path) -> None:
    evaluation = random_evaluation(data)
    gates = {"dress": torch.linspace(0, 1, 8).unsqueeze(1)}
    page = written(tmp_path, evaluation, data, gates=gates)
    assert "the query's id in the dataset, and its gate: the number" in page.text
    for card in page.cards:
        number = re.findall(r"dress/(\d)", card.text)
        assert ("gate" in card.text) == bool(number)
        if number:
            assert f"gate {int(number[0]) / 7:.2f}" in card.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"each": 0}, "each must be a whole number of at least 1, got 0"),
        ({"top": 0}, "top must be a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"gates": {"skirt": [1.0]}}, "gates of 'skirt'; the tasks are 'dress', 'shirt', 'toptee'"),
        ({"gates": {"dress": [1.0]}}, "1 gates for the 8 queries of task 'dress'"),
    ],
)
def test_what_does_not_fit_is_named(
    data: FashionIQ, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        written(tmp_path, random_evaluation(data), data, **options)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(("module", "extra"), [("PIL", "images"), ("jinja2", "report")])
def test_without_a_library_the_extra_is_named(
    data: FashionIQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"fusecomp\[{extra}\]"):
        retrieval_page(random_evaluation(data), data, tmp_path / "page.html")


# In a browser


@pytest.fixture(scope="session")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return name
    pytest.skip("needs a headless Chromium")


def shown(browser: str, page: Path, address: str, profile: Path) -> Page:
    """The page as it stands once its scripts have run."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={profile}", "--dump-dom", f"{page.as_uri()}{address}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Page(done.stdout)


def visible(page: Page) -> list[Card]:
    return [card for card in page.cards if not card.hidden]


def test_a_browser_renders_and_filters_it(browser: str, data: FashionIQ, tmp_path: Path) -> None:
    whole = written(tmp_path, random_evaluation(data), data, each=2)
    page = tmp_path / "page.html"
    for address, kind, task in (
        ("", "random", None),
        ("#show=worst", "worst", None),
        ("#show=best&task=1", "best", "1"),
        ("#show=nothing&task=7", "random", None),
    ):
        seen = shown(browser, page, address, tmp_path / "profile")
        expected = [c for c in whole.cards if kind in c.kinds and task in (None, c.task)]
        assert [card.figures for card in visible(seen)] == [card.figures for card in expected]
        for card in visible(seen):
            assert card.loaded == sum(name in seen.images for name, _ in card.figures)
        assert f"{len(expected)} queries" in seen.text


def test_a_click_filters_it(browser: str, data: FashionIQ, tmp_path: Path) -> None:
    whole = written(tmp_path, random_evaluation(data), data, each=2)
    page = tmp_path / "page.html"
    choose = """document.querySelector('[value="best"]'), document.querySelector('[value="2"]')"""
    clicks = f"for (const input of [{choose}]) input.click();"
    page.write_text(page.read_text().replace("</body>", f"<script>{clicks}</script></body>"))
    seen = shown(browser, page, "", tmp_path / "profile")
    expected = [c for c in whole.cards if "best" in c.kinds and c.task == "2"]
    assert [card.figures for card in visible(seen)] == [card.figures for card in expected]
    assert len(expected) == 2


def test_gates_of_another_task_name_also_one_without_a_name(
    tiny_cirr: Path, tmp_path: Path
) -> None:
    data = CIRR(tiny_cirr, "val")
    with pytest.raises(ValueError, match=r"gates of 'x'; the tasks are ''$"):
        retrieval_page(random_evaluation(data), data, tmp_path / "page.html", gates={"x": [1.0]})

"""The page in a real browser: Debian's Chromium, driven by playwright."""

import json
import os
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_site import HOSTILE, Site, running
from PIL import Image

api = pytest.importorskip("playwright.sync_api", reason="needs the extra demo-test")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, or its path in CHROMIUM")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Any]:
    """A browser of its own; any request to elsewhere, and any error of the page, fails the test."""
    problems: list[str] = []
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 1400, "height": 900},
            permissions=["clipboard-read", "clipboard-write"],
        )
        opened.set_default_timeout(60_000)

        def watch(route: Any) -> None:
            if re.match(r"http://(127\.0\.0\.1|localhost):\d+/", route.request.url):
                route.continue_()
            else:
                problems.append(route.request.url)
                route.abort()

        opened.route("**/*", watch)
        opened.on("weberror", lambda error: problems.append(str(error.error)))
        yield opened
        opened.close()
    assert problems == []


@pytest.fixture
def page(context: Any, site: Site) -> Any:
    page = context.new_page()
    page.goto(site.url)
    page.locator("#results li").nth(23).wait_for()
    return page


def ids_of(page: Any) -> list[str]:
    """The ids of the results, in order."""
    return [button.get_attribute("title") for button in page.locator(".pick").all()]


def ask(page: Any, text: str, steps: int) -> list[str]:
    """Search, and wait until the history has so many steps."""
    page.fill("#text", text)
    page.click("button.main")
    page.locator("#history li").nth(steps - 1).wait_for()
    api.expect(page.locator("#text")).to_have_value("")
    return ids_of(page)


def test_an_upload_three_rounds_a_like_and_undo(page: Any, site: Site, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (40, 80, 160)).save(tmp_path / "mine.jpg")
    page.set_input_files("#file", tmp_path / "mine.jpg")
    api.expect(page.locator("#reference-name")).to_have_text("Your image")
    assert page.locator("#reference img").get_attribute("src").startswith("blob:")
    first = ask(page, "is longer", 1)
    page.locator(".pick").nth(2).click()
    api.expect(page.locator("#text")).to_be_focused()
    second = ask(page, "is blue", 2)
    assert first[2] not in second  # shown already
    page.locator(".pick").first.click()
    third = ask(page, "with stripes", 3)
    assert page.locator("#history .soft").all_inner_texts()[0].startswith("gate 0.")
    page.get_by_label(f"Like {third[1]}", exact=True).click()
    page.locator("#history li").nth(3).wait_for()
    assert page.locator("#history li").nth(3).inner_text() == f"liked {third[1]}"
    assert third[1] not in ids_of(page)
    page.click("#undo")
    api.expect(page.locator("#history li")).to_have_count(3)
    assert ids_of(page) == third
    page.get_by_label("Back to step 1").click()
    api.expect(page.locator("#history li")).to_have_count(1)
    assert ids_of(page) == first
    page.go_back()
    api.expect(page.locator("#history li")).to_have_count(3)
    assert ids_of(page) == third


def test_a_link_restores_the_session_elsewhere(context: Any, page: Any, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (200, 80, 60)).save(tmp_path / "mine.png")
    page.set_input_files("#file", tmp_path / "mine.png")
    api.expect(page.locator("#reference-name")).to_have_text("Your image")
    ask(page, "ist länger, 更长", 1)
    page.select_option("#strategy", label="the mean of all rounds")
    page.get_by_label("weight").wait_for()
    page.get_by_label("weight").fill("0.5")
    page.keyboard.press("Tab")
    page.locator(".pick").nth(4).click()
    found = ask(page, "has a <b>collar</b>", 2)
    page.click("#copy")
    api.expect(page.locator("#copy")).to_have_text("Copied")
    link = page.evaluate("navigator.clipboard.readText()")
    other = context.new_page()
    for load in (lambda: other.goto(link), other.reload):
        load()
        other.locator("#history li").nth(1).wait_for()
        assert ids_of(other) == found
        assert other.locator("#history p").all_inner_texts() == [
            "“ist länger, 更长”",
            "“has a <b>collar</b>”",
        ]
        assert (
            other.locator("#strategy").locator("option:checked").inner_text().startswith("the mean")
        )
        assert [box.input_value() for box in other.get_by_label("weight").all()] == ["0.5", "1"]


def test_a_task_shows_the_rank_of_its_target(page: Any, site: Site) -> None:
    page.click("#draw-task")
    number = int(page.locator("#task-number:not(:empty)").inner_text().split()[0]) - 1
    task = site.state.answers.tasks[number]
    api.expect(page.locator("#reference-name")).to_have_text(task.reference_id)
    api.expect(page.locator("#text")).to_have_value(" and ".join(task.texts))
    page.click("button.main")
    page.locator("#rank:not(:empty)").wait_for()
    step = {"text": " and ".join(task.texts), "weight": 1, "reference": task.reference_id}
    rank = site.search(step, task=number).json["rank"]
    assert page.locator("#rank").inner_text() == f"The target is at rank {rank} of 91 images."
    page.click("#end-task")
    api.expect(page.locator("#task")).to_be_hidden()


def test_the_keyboard_is_enough(page: Any) -> None:
    def tab_to(label: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.getAttribute('aria-label')") == label:
                style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert style == "solid"
                return
        raise AssertionError(f"no {label} within 80 tabs")

    chosen = ids_of(page)[1]
    tab_to(f"Go on from {chosen}")
    page.keyboard.press("Enter")  # the focus goes to the text
    page.keyboard.type("is red")
    page.keyboard.press("Enter")
    page.locator("#history li").first.wait_for()
    liked = ids_of(page)[0]
    tab_to(f"Like {liked}")
    page.keyboard.press("Space")
    page.locator("#history li").nth(1).wait_for()
    # The next image has come to the place of the one that was judged, and so has the focus.
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == f"Like {ids_of(page)[0]}"


def test_a_phone_shows_all_without_scrolling_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.click("#draw-task")
    page.locator("#task-number:not(:empty)").wait_for()
    ask(page, "has a verylongwordthatnobodywouldeverwrite" * 5, 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for name in ("#text", "button.main", "#undo", "#copy", "#strategy"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400


def test_what_goes_wrong_is_said_and_the_session_stays(
    page: Any, site: Site, tmp_path: Path
) -> None:
    page.click("button.main")
    error = page.locator("#error")
    api.expect(error).to_have_text("Choose an image, write a text, or both.")
    (tmp_path / "evil.png").write_bytes(b"<img src=x onerror=alert(1)>")
    page.set_input_files("#file", tmp_path / "evil.png")
    api.expect(error).to_contain_text("not an image that Pillow can open")
    found = ask(page, "<img src=x onerror=\"document.title='owned'\">", 1)
    api.expect(error).to_be_hidden()
    assert page.locator("#history p").inner_text().startswith("“<img src=x")
    page.select_option("#strategy", label="the mean of all rounds")
    page.get_by_label("weight").fill("-1")
    page.keyboard.press("Tab")
    api.expect(error).to_contain_text("no round has a positive weight")
    box = error.bounding_box()  # beside what was done, wherever the page is scrolled to
    assert 0 <= box["y"] <= 900 - box["height"]
    assert page.evaluate("scrollY") == 0
    assert page.get_by_label("weight").input_value() == "1"
    assert page.title() == "Composed image search"
    assert len(ids_of(page)) == len(found)


def link(site: Site, *steps: dict[str, Any]) -> str:
    """The address that holds a session of these steps."""
    session = site.ask("/state").json["session"] | {"steps": [*steps]}
    content = json.dumps({"session": session, "task": None})
    return f"{site.url}#{b64encode(content.encode()).decode()}"


def test_names_of_images_are_text(context: Any, site: Site) -> None:
    page = context.new_page()
    page.goto(link(site, {"image": HOSTILE, "liked": True}))
    api.expect(page.locator("#history p")).to_have_text(f"liked {HOSTILE}")
    # The same file under another name is the most similar image.
    twin = site.state.answers.names[0]
    api.expect(page.locator(".pick").first).to_have_attribute("title", twin)
    page.goto(link(site, {"image": "<b>", "liked": True}))
    api.expect(page.locator("#error")).to_contain_text("the image '<b>' is not in the gallery")
    page.goto(link(site, {"image": twin, "liked": True}))
    api.expect(page.locator("#history p")).to_have_text(f"liked {twin}")
    api.expect(page.locator(".pick").first).to_have_attribute("title", HOSTILE)
    page.locator(".pick").first.click()
    api.expect(page.locator("#reference-name")).to_have_text(HOSTILE)
    assert page.title() == "Composed image search"


@pytest.mark.parametrize("fragment", ["x", "e30=", "%00", "W10=", "bnVsbA=="])
def test_a_broken_link_says_so_and_starts_anew(context: Any, site: Site, fragment: str) -> None:
    page = context.new_page()
    page.goto(f"{site.url}#{fragment}")
    api.expect(page.locator("#error")).to_have_text("This link holds no search of this page.")
    api.expect(page.locator("#results li")).to_have_count(24)


def hold_first(page: Any, pattern: str) -> list[Any]:
    """Keep the first request of a kind waiting; the others pass."""
    held: list[Any] = []

    def watch(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route(pattern, watch)
    return held


def release(page: Any, held: list[Any], **answer: Any) -> None:
    """Let the request that waits go on, or answer it, and wait until the page has seen that."""
    (route,) = held
    with page.expect_event("requestfinished", lambda request: request == route.request):
        route.fulfill(**answer) if answer else route.continue_()
    page.wait_for_timeout(200)


@pytest.mark.parametrize("answer", [{}, {"status": 422, "json": {"error": "late"}}])
def test_a_late_answer_to_an_earlier_search_changes_nothing(page: Any, answer: Any) -> None:
    held = hold_first(page, "**/search")
    page.fill("#text", "is red")
    page.click("button.main")
    page.fill("#text", "is blue")
    page.click("button.main")
    page.locator("#history li").wait_for()
    found = ids_of(page)
    page.fill("#text", "half a word")
    release(page, held, **answer)
    assert page.locator("#history p").all_inner_texts() == ["“is blue”"]
    assert ids_of(page) == found
    assert page.locator("#error").is_hidden()
    assert page.input_value("#text") == "half a word"


def test_what_is_typed_during_a_search_stays(page: Any) -> None:
    held = hold_first(page, "**/search")
    page.fill("#text", "is red")
    page.click("button.main")
    page.fill("#text", "and longer")
    release(page, held)
    assert page.locator("#history p").all_inner_texts() == ["“is red”"]
    assert page.input_value("#text") == "and longer"


def test_the_last_of_two_tasks_and_uploads_stays(page: Any, site: Site, tmp_path: Path) -> None:
    held = hold_first(page, "**/tasks/*")
    for _ in range(2):
        page.click("#draw-task")
    page.locator("#task-number:not(:empty)").wait_for()
    release(page, held)
    number = int(page.locator("#task-number").inner_text().split()[0]) - 1
    task = site.state.answers.tasks[number]
    assert page.locator("#reference-name").inner_text() == task.reference_id
    assert page.input_value("#text") == " and ".join(task.texts)
    held = hold_first(page, "**/upload")
    Image.new("RGB", (30, 20), (200, 80, 60)).save(tmp_path / "mine.png")
    page.set_input_files("#file", tmp_path / "mine.png")
    chosen = ids_of(page)[3]
    page.locator(".pick").nth(3).click()
    release(page, held)
    assert page.locator("#reference-name").inner_text() == chosen
    api.expect(page.locator("#right")).not_to_have_class("busy")


def test_pressing_twice_does_one_thing(page: Any) -> None:
    page.locator(".pick").first.click()
    page.fill("#text", "is blue")
    page.keyboard.press("Enter")
    api.expect(page.locator("#text")).to_have_value("")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    api.expect(page.locator("#history li")).to_have_count(1)
    like = page.locator("#results li").nth(2).get_by_text("Like", exact=True)
    like.click()
    page.locator("#history li").nth(1).wait_for()
    like.click(click_count=2)  # the second press has come late, to the next image
    page.wait_for_timeout(300)
    api.expect(page.locator("#history li")).to_have_count(3)


def test_a_server_that_comes_back_is_asked_again(context: Any, site: Site) -> None:
    with running(site.state) as first:
        page = context.new_page()
        page.goto(first.url)
        page.locator("#results li").nth(23).wait_for()
        ask(page, "is blue", 1)
    page.fill("#text", "is longer")
    page.click("button.main")
    api.expect(page.locator("#error")).to_contain_text("The server does not answer")
    assert page.input_value("#text") == "is longer"
    with running(site.state, first.port) as second:
        ask(page, "is longer", 2)
        sources = [image.get_attribute("src") for image in page.locator(".pick img").all()]
        start = second.ask("/state").json["thumbnails"]
        assert sources
        assert all(source.startswith(start) for source in sources)
        page.close()


def test_a_page_that_met_a_dying_server_goes_on_by_itself(context: Any, site: Site) -> None:
    page = context.new_page()
    failing = iter([True, True])

    def fail_once(route: Any) -> None:
        route.abort() if next(failing, False) else route.continue_()

    page.route("**/sample", fail_once)
    said: list[str] = []

    def note(text: str) -> None:
        said.append(text)

    page.expose_function("note", note)
    page.add_init_script(
        "addEventListener('DOMContentLoaded', () => new MutationObserver(() => "
        "note(document.getElementById('error').textContent))"
        ".observe(document.getElementById('error'), {childList: true}))"
    )
    page.goto(site.url)
    page.locator("#results li").nth(23).wait_for()
    assert "The server does not answer. Is it still running?" in said
    assert not any("undefined" in text for text in said)
    assert page.locator("#error").is_hidden()

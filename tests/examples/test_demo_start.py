"""How the page's server starts: what it shows before, and what it reads."""

import argparse
import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from demo_site import running

import fusecomp as fc

pytest.importorskip("starlette", reason="needs the extra demo")
pytest.importorskip("uvicorn", reason="needs the extra demo")
from demo import app, serve

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_before_the_model_is_there_the_page_says_how_far_it_is() -> None:
    state = app.State(progress=[f"epoch {n}" for n in range(20)], error="the disk is full")
    with running(state) as site:
        assert site.ask("/").status == 200
        found = site.ask("/state").json
        assert found["progress"] == [f"epoch {n}" for n in range(12, 20)]
        assert found["error"] == "the disk is full"
        for path, body in (("/sample", None), ("/search", {}), ("/upload", b"x")):
            assert site.ask(path, body).status == 503


def test_the_first_page_waits_for_no_torch() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import demo.serve; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert {"torch", "numpy", "PIL", "fusecomp"}.isdisjoint(loaded.stdout.split())


@pytest.mark.parametrize(("given", "threads"), [({}, "1"), ({"OMP_NUM_THREADS": "3"}, "3")])
def test_numpy_computes_on_one_thread_unless_told_otherwise(
    given: dict[str, str], threads: str
) -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    code = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import demo.serve, os; " + (
        "print(os.environ['OPENBLAS_NUM_THREADS'], 'numpy' in sys.modules)"
    )
    for more in ({}, {"OPENBLAS_NUM_THREADS": "5"}):
        found = subprocess.run(
            [sys.executable, "-c", code],
            env={k: v for k, v in os.environ.items() if k not in names} | given | more,
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.split() == ["5" if more else threads, "False"]


def start(workdir: Path) -> tuple["subprocess.Popen[str]", str]:
    command = [sys.executable, "-u", EXAMPLES / "demo" / "serve.py", "--no-browser", "--port", "0"]
    process = subprocess.Popen(
        [*map(str, command), "--workdir", str(workdir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    return process, process.stdout.readline().split()[0]


def test_an_answer_waits_for_no_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[socket.socket] = []

    def run(self: Any, sockets: list[socket.socket]) -> None:
        given.extend(sockets)

    monkeypatch.setattr("uvicorn.Server.run", run)
    serve.serve(lambda say: None, port=0)  # type: ignore[arg-type, return-value]
    with given[0] as listening, socket.create_connection(listening.getsockname()[:2]):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_without_a_model_the_page_is_there_and_a_model_is_made(tmp_path: Path) -> None:
    process, url = start(tmp_path)
    try:
        with urllib.request.urlopen(url) as page:
            assert b"being prepared" in page.read()
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(2)]
        assert "there is no model yet" in lines[0]
        assert lines[1] == "drawing images of garments\n"
        with urllib.request.urlopen(f"{url}state") as state:
            assert "drawing images of garments" in json.load(state)["progress"]
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = [Path("/proc", pid) for path in tasks for pid in path.read_text().split()]
    finally:
        process.terminate()
        process.communicate()
    # The training has ended with the server.
    assert len(children) == (sys.platform == "linux")
    assert not any(child.exists() for child in children)


def arguments(**given: Any) -> argparse.Namespace:
    names = ("model", "gallery", "images", "backbone", "weights", "clip_checkpoint", "triplets")
    return argparse.Namespace(**dict.fromkeys(names) | {"device": "cpu"} | given)


def test_the_model_that_is_made_is_read_again(tmp_path: Path) -> None:
    from demo import quick_model

    quick_model.make(tmp_path, images=50, pretrain_epochs=1, epochs=1)
    said: list[str] = []
    answers = serve.prepare(arguments(workdir=tmp_path), said.append)
    assert said == ["reading the model and its gallery"]
    assert (len(answers.gallery), len(answers.tasks)) == (75, 105)
    step = {"text": "is blue", "weight": 1.0, "reference": answers.names[0]}
    wish = {"session": answers.about()["session"] | {"steps": [step]}, "task": 0, "count": 5}
    assert len(answers.search(json.dumps(wish).encode())["results"]) == 5


def test_images_are_found_by_path_or_stem_and_never_by_chance(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.JPG", "b/2.png", "b/3.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = serve.find_images(tmp_path, ["1", "a/1", "a/2.JPG", "b/2"])
    assert {key: path.relative_to(tmp_path).as_posix() for key, path in found.items()} == {
        "1": "a/1.png",
        "a/1": "a/1.png",
        "a/2.JPG": "a/2.JPG",
        "b/2": "b/2.png",
    }
    with pytest.raises(ValueError, match=r"the image '2' may be .* or "):
        serve.find_images(tmp_path, ["1", "2"])
    with pytest.raises(FileNotFoundError, match=r"2 of the gallery's 3 images are not in .*'3'"):
        serve.find_images(tmp_path, ["1", "3", "../x"])


def test_half_of_the_flags_of_ones_own_model_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in (["--model", "m"], ["--triplets", "t"], ["--model", "m", "--gallery", "g"]):
        monkeypatch.setattr(sys, "argv", ["serve.py", *given])
        with pytest.raises(SystemExit):
            serve.parse_arguments()
        assert "--backbone belong together" in capsys.readouterr().err


def test_what_goes_wrong_in_the_preparation_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    state = app.State()

    def fail(say: serve.Say) -> Any:
        say("reading")
        raise ZeroDivisionError("oh")

    serve.fill(state, fail)
    assert (state.answers, state.progress, state.error) == (
        None,
        ["reading"],
        "ZeroDivisionError: oh",
    )
    assert "error: ZeroDivisionError: oh" in capsys.readouterr().err


def test_one_can_search_with_a_clip_of_ones_own(
    open_clip: Any, draw_images: Any, tmp_path: Path
) -> None:
    import backbones

    name = "tiny-own-quickgelu"
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1}
    vision = {"image_size": 64, "layers": 1, "width": 64, "patch_size": 32}
    config = {"embed_dim": 32, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    images = {f"kind/{n}": tmp_path / "images" / "kind" / f"{n}.png" for n in range(6)}
    draw_images(images.values())
    encoder = backbones.make_encoder(arguments(backbone=name))
    model = fc.ComposedEncoder(encoder, fc.Sum())
    model.save(tmp_path / "model")
    gallery = fc.Gallery.build(model, [*images], images.__getitem__)
    gallery.save(tmp_path / "gallery.safetensors")
    (tmp_path / "mine.csv").write_text("reference,text,target\nkind/0,is blue,kind/1\n")
    files = {"model": "model", "gallery": "gallery.safetensors", "images": "images"}
    own = {key: tmp_path / file for key, file in (files | {"triplets": "mine.csv"}).items()}
    answers = serve.prepare(arguments(backbone=name, **own), lambda _: None)
    assert answers.about()["tasks"] == 1
    assert answers.thumbnail(0) is not None
    features = answers.upload(images["kind/0"].read_bytes())["features"]
    assert len(features) == 172  # 32 numbers of 4 bytes in base64

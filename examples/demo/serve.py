"""Search by image and text in a browser, in rounds.

    python examples/demo/serve.py                  # on drawn images; trains a small model once
    python examples/demo/serve.py --model FOLDER --gallery FILE --images FOLDER --backbone NAME

The second searches on your own: a model that ComposedEncoder.save wrote, a gallery that
Gallery.save wrote with this model, the folder of its images, and the name by which open_clip makes
the encoder, whose weights come from the model's folder. --triplets FILE, a table as TripletTable
reads it, offers its queries as tasks with a known target. Another encoder needs a script of ten
lines: see docs/demo.md.
"""

import argparse
import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
import webbrowser
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))
# What loads torch is imported where it is used, so that the page is there at once.
from demo.app import WORKERS, State, make_app

try:
    import uvicorn
except ImportError:
    sys.exit('error: the page needs its extra: pip install "fusecomp[demo]"')
if TYPE_CHECKING:
    from demo.answers import Answers
    from fusecomp.types import Encoder

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
Say = Callable[[str], None]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = parser.add_argument_group("your own model")
    own.add_argument("--model", type=Path, help="the folder that ComposedEncoder.save wrote")
    own.add_argument("--gallery", type=Path, help="the file that Gallery.save wrote")
    own.add_argument("--images", type=Path, help="the folder of the gallery's images")
    own.add_argument("--backbone", help="a name of open_clip, such as RN50x4-quickgelu")
    own.add_argument("--clip-checkpoint", type=Path, help="instead of it: a published tuned CLIP")
    own.add_argument(
        "--weights", type=Path, help="of the backbone, if the model was saved on cached features"
    )
    own.add_argument("--triplets", type=Path, help="a .csv or .jsonl table: tasks to try")
    parser.add_argument("--device", default="cpu", help="such as cuda; default: cpu")
    parser.add_argument(
        "--workdir", type=Path, default=Path("runs/demo"), help="for the drawn images and the model"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--allow-host", nargs="+", default=[], metavar="NAME", help="names that browsers may call"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    args = parser.parse_args()
    given = [args.model, args.gallery, args.images, args.backbone or args.clip_checkpoint]
    if any([*given, args.weights, args.triplets]) and not all(given):
        parser.error("--model, --gallery, --images and --backbone belong together")
    return args


def main() -> None:
    """Serve the page until Ctrl-C."""
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as any end, it ends the training too
    serve(
        lambda say: prepare(args, say), args.host, args.port, args.allow_host, not args.no_browser
    )


def serve(
    prepare: "Callable[[Say], Answers]",
    host: str = "127.0.0.1",
    port: int = 8000,
    allow: Collection[str] = (),
    browser: bool = False,
) -> None:
    """Serve the page, which shows how far ``prepare`` is until that returns.

    Args:
        prepare: gets a function that shows a line on the page, and returns the answers.
        host: the address to listen on.
        port: 0 takes a free one.
        allow: other names of this machine that browsers may call.
        browser: open the page.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        sys.exit(f"error: cannot listen on {host}, port {port} ({error}); choose another --port")
    # An answer goes out at once: by default its body waits for the other side, some 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name, port = (f"[{host}]" if ":" in host else host), listening.getsockname()[1]
    url = f"http://{name}:{port}/"
    print(f"{url}  (Ctrl-C ends the server)", flush=True)
    state = State()
    threading.Thread(target=fill, args=(state, prepare), daemon=True).start()
    if browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    app = make_app(state, {*LOOPBACK, host, *allow})
    # Connections last longer than somebody thinks about the next round.
    limits: dict[str, Any] = {"timeout_keep_alive": 60, "limit_concurrency": 1000}
    config = uvicorn.Config(app, log_level="warning", ws="none", **limits)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        print("stopped")


def fill(state: State, prepare: "Callable[[Say], Answers]") -> None:
    """Prepare the answers; an error is shown on the page and in the terminal."""

    def say(line: str) -> None:
        state.progress.append(line)
        print(line, flush=True)

    try:
        answers = prepare(say)
        import torch

        # Each search has its share of the cores; more threads would wait for one another.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // WORKERS))
        state.answers = answers
        say("ready")
    except Exception as error:
        # Nor may a mistake in a user's own script leave the page waiting.
        state.error = str(error)
        if not isinstance(error, OSError | ValueError | ImportError):
            state.error = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        print(f"error: {state.error}", file=sys.stderr, flush=True)


def prepare(args: argparse.Namespace, say: Say) -> "Answers":
    """Read the model and its gallery, and make them first where none are named."""
    folder, file, images, triplets = args.model, args.gallery, args.images, args.triplets
    if folder is None:
        names = ("model", "gallery.safetensors", "data/images", "triplets.jsonl")
        folder, file, images, triplets = (args.workdir / name for name in names)
        if not file.exists():
            make_quick_model(args.workdir, say)
    say("reading the model and its gallery")
    import fusecomp as fc
    from demo.answers import Answers

    model = fc.ComposedEncoder.load(folder, make_encoder(args))
    gallery = fc.Gallery.load(file, model)
    paths = find_images(images, [name for name in gallery.image_ids if name is not None])
    table = [] if triplets is None else fc.datasets.TripletTable(triplets, images).triplets()
    answers = Answers(model, gallery, paths.__getitem__, table)
    if len(answers.tasks) < len(table):
        say(
            f"{len(table) - len(answers.tasks)} of {len(table)} triplets are no tasks: the gallery "
            "lacks their reference or target"
        )
    return answers


def make_encoder(args: argparse.Namespace) -> "Encoder":
    """Make the encoder of the command line, or that of the small model."""
    if args.backbone or args.clip_checkpoint:
        import backbones

        return backbones.make_encoder(args)
    import tinyclip

    import fusecomp as fc
    from demo.quick_model import DIM

    image, text = tinyclip.TinyImageEncoder(DIM), tinyclip.TinyTextEncoder(DIM)
    return fc.DualEncoder(image, text, load_image=tinyclip.load_image)


def make_quick_model(workdir: Path, say: Say) -> None:
    """Run quick_model.py in a process of its own, and show what it prints."""
    say("there is no model yet: a small one is made, which takes about a minute")
    script = Path(__file__).with_name("quick_model.py")
    command = [sys.executable, "-u", str(script), "--workdir", str(workdir)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        atexit.register(stop, child)
        for line in child.stdout or ():
            say(line.rstrip())
    if child.returncode:
        raise ValueError(f"{script.name} failed (exit status {child.returncode}): {line.rstrip()}")


def stop(child: "subprocess.Popen[str]") -> None:
    """End a process, unless it has ended."""
    child.terminate()
    child.wait()


def find_images(folder: Path, image_ids: Sequence[str]) -> dict[str, Path]:
    """Return the file of each image: its path below the folder, without suffix or not, or its stem.

    Raises:
        FileNotFoundError: if images have no file.
        ValueError: if an id may be either of two files.
    """
    files: dict[str, set[Path]] = defaultdict(set)
    for path in folder.rglob("*"):
        if path.suffix.lower() in SUFFIXES:
            below = path.relative_to(folder)
            for name in {below.as_posix(), below.with_suffix("").as_posix(), path.stem}:
                files[name].add(path)
    missing = [name for name in image_ids if name not in files]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the gallery's {len(image_ids)} images are not in {folder}, the "
            f"first: {missing[0]!r}"
        )
    for name in image_ids:
        if len(files[name]) > 1:
            raise ValueError(f"the image {name!r} may be {' or '.join(map(str, files[name]))}")
    return {name: next(iter(files[name])) for name in image_ids}


if __name__ == "__main__":
    main()

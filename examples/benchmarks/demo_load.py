"""The page's server under load: many users, each with a round every five seconds.

    python examples/benchmarks/demo_load.py [--users 50] [--seconds 60] [--images 10000]

The gallery holds random features of width 640, the model is two small encoders and a Combiner with
random weights, and the images are 200 files like photos, used in turn. A user takes five rounds,
each from a result of the one before, and starts over; every other one has a task, whose target is
ranked. In the second row each round also fetches the thumbnails of its 24 results. Milliseconds are
those of the search, at the user's side; CPU time is that of all that a round makes the server do.
Linux only.
"""

import argparse
import json
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from measure import print_table
from photos import CHANGES, draw

sys.path.insert(0, str(Path(__file__).parents[1]))

DIM, PHOTOS, PAUSE, ROUNDS, RESULTS = 640, 200, 5.0, 5, 24


def run_server(port: int, images: int, folder: Path) -> None:
    """Serve random features until the process is ended."""
    import tinyclip
    import torch
    from demo.answers import Answers
    from demo.serve import serve

    import fusecomp as fc

    torch.manual_seed(0)
    torch.set_num_threads(1)
    files = sorted(folder.iterdir())
    paths = {f"image {row}": files[row % len(files)] for row in range(images)}
    image, text = tinyclip.TinyImageEncoder(DIM), tinyclip.TinyTextEncoder(DIM)
    encoder = fc.DualEncoder(image, text, load_image=tinyclip.load_image)
    model = fc.ComposedEncoder(encoder, fc.Combiner(DIM))
    gallery = fc.Gallery([*paths], torch.randn(images, DIM), key=encoder.fingerprint())
    tasks = [fc.Triplet(f"{n}", f"image {n}", ("is red",), f"image {n + 1}") for n in range(100)]
    answers = Answers(model, gallery, paths.__getitem__, tasks)
    serve(lambda _: answers, port=port)


class User(threading.Thread):
    """One who searches: keeps one connection, and the milliseconds of each search."""

    def __init__(self, port: int, number: int, seconds: float, thumbnails: bool) -> None:
        super().__init__()
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self.random, self.task = random.Random(number), number if number % 2 else None
        self.seconds, self.thumbnails = seconds, thumbnails
        self.times: list[float] = []
        self.failed = 0

    def run(self) -> None:
        """Search until the time is over."""
        about = json.loads(self.fetch("/state"))
        began = time.monotonic()
        next_round = began + PAUSE * self.random.random()
        steps: list[dict[str, Any]] = []
        found = json.loads(self.fetch("/sample"))["results"]
        while next_round < began + self.seconds:
            time.sleep(max(0, next_round - time.monotonic()))
            next_round += PAUSE
            reference = self.random.choice(found)["id"] if found else "image 0"
            step = {"text": self.random.choice(CHANGES), "weight": 1.0, "reference": reference}
            steps = [*steps, step] if len(steps) < ROUNDS else [step]
            strategy = self.random.choice(about["strategies"])["value"]
            session = about["session"] | {"steps": steps, "strategy": strategy}
            wish = {"session": session, "task": self.task, "count": RESULTS}
            before = time.perf_counter()
            found = json.loads(self.fetch("/search", json.dumps(wish)))["results"]
            self.times.append(1e3 * (time.perf_counter() - before))
            for result in found if self.thumbnails else ():
                self.fetch(f"{about['thumbnails']}{result['row']}")
        self.connection.close()

    def fetch(self, path: str, body: str | None = None) -> bytes:
        """Return what the server answers, and count what it refuses."""
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            self.connection.request("POST" if body else "GET", path, body, headers)
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, HTTPException):
            self.connection.close()  # the next request opens it again
        else:
            if response.status == 200:
                return content
        self.failed += 1
        return b'{"results": []}'


def cpu_seconds(process: int) -> float:
    """Return the processor's seconds that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(server: int, port: int, args: argparse.Namespace, thumbnails: bool) -> list[str]:
    """Let the users search, and return a row of the table."""
    users = [User(port, number, args.seconds, thumbnails) for number in range(args.users)]
    before = cpu_seconds(server)
    for user in users:
        user.start()
    for user in users:
        user.join()
    cpu = cpu_seconds(server) - before
    times = np.array([time for user in users for time in user.times])
    cells = [len(times), sum(user.failed for user in users)]
    numbers = [*np.percentile(times, [50, 95, 100]), 1e3 * cpu / len(times)]
    name = f"with {RESULTS} thumbnails each" if thumbnails else "searches alone"
    return [name, *map(str, cells), *(f"{number:.0f}" for number in numbers)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--images", type=int, default=10_000)
    args = parser.parse_args()
    import demo  # noqa: F401 - limits the threads of NumPy in the server, which inherits it

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), PHOTOS)
        spawn = multiprocessing.get_context("spawn")
        server = spawn.Process(target=run_server, args=(port, args.images, Path(folder)))
        server.start()
        try:
            wait_for(port)
            rows = [measure(server.pid or 0, port, args, thumbs) for thumbs in (False, True)]
        finally:
            server.terminate()
            server.join()
    header = ("users' rounds", "rounds", "failed", "p50 ms", "p95 ms", "max ms", "CPU ms a round")
    print_table(header, rows)
    print(f"\n{args.users} users, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.0f}")


def wait_for(port: int) -> None:
    """Wait until the server answers."""
    while True:
        time.sleep(0.2)
        connection = HTTPConnection("127.0.0.1", port)
        try:
            connection.request("GET", "/state")
            if b"session" in connection.getresponse().read():
                return
        except OSError:
            continue
        finally:
            connection.close()


if __name__ == "__main__":
    main()

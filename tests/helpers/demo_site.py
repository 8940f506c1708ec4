"""The page's server in a thread, on a small model with random weights, and its client."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import torch

import fusecomp as fc

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def make_answers(root: Path) -> Any:
    """Answers on drawn images, the last one under a hostile id; the model has learned nothing."""
    import tinyclip
    from demo.answers import Answers
    from drawn import minifashion

    sizes = {"train_images": 20, "val_images": 30, "train_triplets": 10, "val_queries": 8}
    val = fc.datasets.FashionIQ(minifashion.render(root, **sizes), "val", name="MiniFashion")
    torch.manual_seed(0)
    image, text = tinyclip.TinyImageEncoder(16), tinyclip.TinyTextEncoder(16)
    encoder = fc.DualEncoder(image, text, load_image=tinyclip.load_image)
    model = fc.ComposedEncoder(encoder, fc.Combiner(16)).eval()
    paths = {image_id: val.path(image_id) for image_id in val.image_ids}
    paths[HOSTILE] = paths[val.image_ids[0]]
    gallery = fc.Gallery.build(model, [*paths], paths.__getitem__)
    return Answers(model, gallery, paths.__getitem__, val.triplets())


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """A running server and the state that it shows."""

    def __init__(self, port: int, state: Any) -> None:
        self.port, self.state = port, state
        self.url = f"http://127.0.0.1:{port}/"

    def ask(self, path: str, body: Any = None, **headers: str) -> Reply:
        """GET, or POST where there is a body; bytes as they are, anything else as JSON."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes | Iterator):
            body, named = json.dumps(body), {"Content-Type": "application/json"} | named
        try:
            connection.request("GET" if body is None else "POST", path, body, named)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def search(self, *steps: dict[str, Any], task: int | None = None, **session: Any) -> Reply:
        """Search by the steps of a session."""
        given = self.ask("/state").json["session"] | {"steps": [*steps]} | session
        return self.ask("/search", {"session": given, "task": task, "count": 12})


@contextmanager
def running(state: Any, port: int = 0) -> Iterator[Site]:
    """A server; 0 takes a free port."""
    import uvicorn
    from demo.app import make_app

    app = make_app(state, ["127.0.0.1", "localhost"])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Site(server.servers[0].sockets[0].getsockname()[1], state)
    finally:
        server.should_exit = True
        thread.join()

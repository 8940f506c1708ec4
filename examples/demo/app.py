"""The page over HTTP: who may ask, how much, and how many at once. Needs the extra demo.

It loads no torch, so that the page is there at once, while a model is made or read.
"""

import asyncio
import json
import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from demo.answers import Answers

PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
LARGEST = {"search": 128 * 1024, "upload": 10 * 1024**2}  # bytes of a body
MOST = {"search": 100, "upload": 8, "thumbnail": 200}  # that are read, wait, or are worked on
BODY_SECONDS, WORKERS = 30, 2


@dataclass
class State:
    """Whether the page can be asked already: the answers, or how far they are, or why not."""

    answers: "Answers | None" = None
    progress: list[str] = field(default_factory=list)
    error: str = ""


def make_app(state: State, hosts: Collection[str]) -> ASGIApp:
    """Return the application.

    Args:
        state: filled in by another thread.
        hosts: the names by which browsers may call this server.
    """
    site = Site(state)
    routes = [
        Route("/", site.page),
        Route("/state", site.state),
        Route("/sample", site.sample),
        Route("/tasks/{number:int}", site.task),
        Route("/thumbnails/{start}/{row:int}", site.thumbnail),
        Route("/search", site.search, methods=["POST"]),
        Route("/upload", site.upload, methods=["POST"]),
    ]
    handlers: Any = {
        HTTPException: lambda _, error: answer({"error": error.detail}, error.status_code)
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts)


class Guard:
    """Refuse other hosts and origins, and tell browsers to load and run nothing but the page.

    A page of another site may not post here (Origin), nor read answers by a name of its own that it
    lets point to this machine (Host, DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app, self.hosts = app, hosts
        hashes = {
            f"{kind}-src": f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
            for kind, tag in (("script", "script"), ("style", "style"))
            for text in re.findall(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
        }
        rules = {"default-src": "'none'", "img-src": "'self' blob: data:", "connect-src": "'self'"}
        closed = dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'")
        self.headers = {
            "Content-Security-Policy": "; ".join(map(" ".join, (rules | hashes | closed).items())),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        problem = self.problem(Headers(scope=scope))
        app = self.app if problem is None else answer({"error": problem}, 403)
        await app(scope, receive, send_guarded)

    def problem(self, headers: Headers) -> str | None:
        """Return why a request is refused; None if it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            name = None
        if name not in self.hosts:
            return f"this server is not called {name!r:.80}; serve.py takes --allow-host NAME"
        if origin is not None and origin.partition("://")[2] != host:
            return f"a page of {origin!r:.80} may not ask this server"
        return None


def answer(content: object, status: int = 200) -> Response:
    """Return JSON in ASCII: names of files may hold what is not UTF-8."""
    return Response(json.dumps(content), status, {"Cache-Control": "no-store"}, "application/json")


class Site:
    """The routes. Searches and thumbnails have threads of their own; a crowd is sent away early."""

    def __init__(self, given: State) -> None:
        self.given = given
        self.start = secrets.token_hex(8)  # another start may serve other images
        self.thumbnails = {"thumbnails": f"/thumbnails/{self.start}/"}
        self.searching, self.drawing = ThreadPoolExecutor(WORKERS), ThreadPoolExecutor(WORKERS)
        self.inside = dict.fromkeys(MOST, 0)

    async def page(self, request: Request) -> Response:
        """Return the page."""
        return Response(PAGE, media_type="text/html", headers={"Cache-Control": "no-cache"})

    async def state(self, request: Request) -> Response:
        """Return how far the preparation is, and afterwards what the page must know."""
        given = self.given
        if given.answers is None:
            return answer({"progress": given.progress[-8:], "error": given.error})
        return answer(given.answers.about() | self.thumbnails | {"largest": LARGEST})

    async def sample(self, request: Request) -> Response:
        """Return random images."""
        return answer(self.answers.sample() | self.thumbnails)

    async def task(self, request: Request) -> Response:
        """Return a task of the dataset."""
        with self.place("search"):
            return await self.ask(self.answers.task, request.path_params["number"])

    async def search(self, request: Request) -> Response:
        """Return the results of the session in the body."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise HTTPException(415, "a search must be application/json")
        with self.place("search"):
            work, content = self.answers.search, await read(request, LARGEST["search"])
            return answer(await self.within(self.searching, work, content) | self.thumbnails)

    async def upload(self, request: Request) -> Response:
        """Return the features of the image in the body."""
        with self.place("upload"):
            return await self.ask(self.answers.upload, await read(request, LARGEST["upload"]))

    async def thumbnail(self, request: Request) -> Response:
        """Return a small image by its position."""
        if request.path_params["start"] != self.start:
            raise HTTPException(404, "this image is of an earlier start of the server")
        draw, row = self.answers.thumbnail, request.path_params["row"]
        with self.place("thumbnail"):
            image = await self.within(self.drawing, draw, row)
        if image is None:
            raise HTTPException(404, f"there is no image {row}")
        headers = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(image, media_type="image/jpeg", headers=headers)

    @contextmanager
    def place(self, kind: str) -> Iterator[None]:
        """Take one of the places that there are for requests of a kind, or send them away."""
        if self.inside[kind] >= MOST[kind]:
            raise HTTPException(503, "too many are asking at once: try again in a moment")
        self.inside[kind] += 1
        try:
            yield
        finally:
            self.inside[kind] -= 1

    @property
    def answers(self) -> "Answers":
        """Return what answers, or say that it is not there yet."""
        if self.given.answers is None:
            raise HTTPException(503, "the model is not ready yet")
        return self.given.answers

    async def ask(self, work: Callable[[Any], object], value: object) -> Response:
        """Return what ``work`` returns as JSON."""
        return answer(await self.within(self.searching, work, value))

    async def within(
        self, pool: ThreadPoolExecutor, work: Callable[[Any], Any], value: object
    ) -> Any:
        """Do work in a thread; what it refuses is said in its own words."""
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, value)
        except (ValueError, TypeError, OSError) as error:
            raise HTTPException(422, str(error)) from error


async def read(request: Request, limit: int) -> bytes:
    """Return the body of a request; refuse one that is too large, as soon as it is, or too slow."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise HTTPException(413, f"that is more than {limit // 1024:,} KiB")
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"it did not arrive within {BODY_SECONDS} seconds") from None
    return b"".join(parts)

"""The browser as a web page: textual-serve, kept to one computer and to one origin."""

from __future__ import annotations

import asyncio
import threading
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from textual_serve.server import Server

from .serve import is_local

__all__ = ["PageServer"]

_WAIT: Final = 0.05
_MOST_WAITS: Final = 60

_POLICY: Final = (
    # Nothing from elsewhere: textual-serve's page asks another company for a font, which would tell it of the visit.
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "object-src 'none'",
    "frame-ancestors 'none'",
)
_HEADERS: Final = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer(Server):
    """Serves the output of a command, a process for each page.

    Another web site that is open in the same web browser must not read a trace through this one: a page opens its
    socket only from the address it was itself loaded from, and a server for this computer answers to its names alone.

    Args:
        command: What draws a page: a line for a shell.
        host: Interface to listen on.
        port: Likewise.
        title: Of the page.
        remote: Whether the server may be called by a name that is not of this computer.
    """

    def __init__(self, command: str, *, host: str, port: int, title: str, remote: bool = False) -> None:
        super().__init__(command, host=host, port=port, title=title)
        self._remote = remote

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM; pages that are open then are closed within a moment."""
        web.run_app(self._make_app(), host=self.host, port=self.port, print=None, access_log=None, shutdown_timeout=0.5)

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: the command has told the address."""

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """The page. Its links lead to the address it was asked at, which behind `ssh -L` is not that of the server."""
        self.public_url = f"{request.scheme}://{request.host}"
        page: web.StreamResponse = await super().handle_index(request)
        return page

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(_guard(self.port, remote=self._remote))
        app.on_cleanup.append(_children_end)
        return app


async def _children_end(app: web.Application) -> None:  # noqa: ARG001 — what is called at the end is given it
    """Let the processes of pages that were just closed end before the event loop does, for a while.

    A thread of asyncio waits for each, and would complain of a loop that is gone.
    """
    for _ in range(_MOST_WAITS):
        if not any("waitpid" in thread.name for thread in threading.enumerate()):
            return
        await asyncio.sleep(_WAIT)


def _guard(port: int, *, remote: bool) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if not remote and not is_local(urlsplit(f"//{request.host}").hostname or ""):
            raise web.HTTPForbidden(text=f"not served under this name; open http://localhost:{port}")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="not served to other web sites")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    return guard

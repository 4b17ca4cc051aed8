"""The server of pages."""

from __future__ import annotations

import asyncio
import functools
from typing import Final

from aiohttp import web
from textual_serve.server import Server

from .answered import guard
from .messages import page_size
from .page import Page

__all__ = ["PageServer"]

_LARGEST: Final = 1 << 20
"""Bytes of a message of a page: a large paste."""


async def _close(socket: web.WebSocketResponse) -> None:
    await socket.close()


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
        self._pages: set[Page] = set()

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM; pages that are open then are closed within a moment."""
        web.run_app(self._make_app(), host=self.host, port=self.port, print=None, access_log=None, shutdown_timeout=0.5)

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: the command has told the address."""

    async def on_shutdown(self, app: web.Application) -> None:  # noqa: ARG002 — what is called at the end is given it
        """The pages end before the event loop does."""
        await asyncio.gather(*(page.remote_close() for page in self._pages), return_exceptions=True)
        await asyncio.gather(*(page.stop() for page in self._pages), return_exceptions=True)

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """The page. Its links lead to the address it was asked at, which behind `ssh -L` is not that of the server."""
        self.public_url = f"{request.scheme}://{request.host}"
        page: web.StreamResponse = await super().handle_index(request)
        return page

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Draw a page for as long as its socket is open."""
        socket = web.WebSocketResponse(timeout=1, heartbeat=15, max_msg_size=_LARGEST)
        size = page_size(request.query.get("width"), request.query.get("height"))
        await socket.prepare(request)
        page = Page(
            self.command,
            write_bytes=socket.send_bytes,
            write_str=socket.send_str,
            close=functools.partial(_close, socket),
            download_manager=self.download_manager,
        )
        self._pages.add(page)
        try:
            await page.start(*size)
            await page.obey(socket)
        except ConnectionError:  # the socket has ended while it was written to
            pass
        finally:
            await asyncio.shield(page.stop())
            self._pages.discard(page)
        return socket

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(guard(self.port, remote=self._remote))
        return app

"""One page: a process that draws it, which ends with the page's socket, and with the server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from aiohttp import WSMsgType, web
from textual_serve.app_service import AppService

from .messages import read_message

__all__ = ["Page"]

_DRIVER: Final = "diffusion_xray.viewer.page_driver:PageDriver"
_GRACE: Final = 2.0
"""Seconds in which a process ends by itself when it was told to."""


class Page(AppService):
    """The process of a page, whose ends are all known: its own, the socket's, the server's."""

    async def stop(self) -> None:
        """Have the process end, at once where it does not want to, and wait until it has."""
        task, self._task = self._task, None
        process = self._process
        if task is None or process is None:
            return
        await self._download_manager.cancel_app_downloads(app_service_id=self.app_service_id)
        with contextlib.suppress(OSError, TimeoutError):  # it may have ended, or read nothing any more
            await asyncio.wait_for(self.send_meta({"type": "quit"}), _GRACE)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE)
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        with contextlib.suppress(TimeoutError):  # until all that it has said was read
            await asyncio.wait_for(task, _GRACE)

    async def run(self) -> None:
        """Hand on what the process draws; when it has ended the page is closed."""
        try:
            await super().run()
        finally:
            await self.remote_close()

    async def obey(self, socket: web.WebSocketResponse) -> None:
        """Hand on what the page says, until its socket ends; the socket is closed at the first thing that is odd."""
        async for received in socket:
            message = read_message(received.data) if received.type is WSMsgType.TEXT else None
            if message is None:
                await socket.close(code=1008)  # a violation of what was agreed
            elif message.kind == "stdin":
                await self.send_bytes(message.keys)
            elif message.kind == "resize":
                await self.set_terminal_size(*message.size)
            elif message.kind == "ping":
                await socket.send_json(["pong", message.sent])
            elif message.kind == "blur":
                await self.blur()
            else:
                await self.focus()

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        return super()._build_environment(width, height) | {"TEXTUAL_DRIVER": _DRIVER}

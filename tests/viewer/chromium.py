"""A headless Chromium, driven through its debugging protocol, which tells what a page's socket was sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pyte

__all__ = ["CHROMIUM", "Page", "open_page"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_COLUMNS, _ROWS = 150, 60
"""At least those of the page, which has as many as its window holds."""


class Page:
    """A page that shows a terminal."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._screen = pyte.Screen(_COLUMNS, _ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self.received = b""
        """Everything that the socket of the page was sent."""
        self.fetched: dict[str, str] = {}
        """Addresses that the page got, or tried to, by the number of the request."""
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, **parameters: Any) -> Any:
        """Ask the web browser for something, and wait for its answer."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        return await asyncio.wait_for(answer, 60)

    async def press(self, key: str) -> None:
        """Press a key that is a character."""
        await self.evaluate("document.querySelector('textarea').focus()")
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key, code=f"Key{key.upper()}")
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=f"Key{key.upper()}")

    async def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        return (await self.call("Runtime.evaluate", expression=script, returnByValue=True))["result"].get("value")

    async def picture(self) -> bytes:
        """What the page looks like, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])

    @property
    def text(self) -> str:
        """What the terminal shows."""
        return "\n".join(self._screen.display)

    async def until(self, wanted: Callable[[], bool], *, seconds: float = 60) -> None:
        """Wait until something holds."""
        for _ in range(round(seconds * 20)):
            if wanted():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not within {seconds:g} s; the page shows\n{self.text}")

    async def close(self) -> None:
        """Stop listening."""
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader

    async def _read(self) -> None:
        async for message in self._socket:
            document = message.json()
            if "id" in document:
                answer = self._answers.pop(document["id"])
                if not answer.done():
                    answer.set_result(document.get("result", {}))
            elif document["method"] == "Network.webSocketFrameReceived":
                frame = document["params"]["response"]
                if frame["opcode"] == 2:
                    data = base64.b64decode(frame["payloadData"])
                    self.received += data
                    self._stream.feed(data)
            elif document["method"] == "Network.requestWillBeSent":
                self.fetched[document["params"]["requestId"]] = document["params"]["request"]["url"]
            elif document["method"] == "Network.loadingFailed" and document["params"].get("blockedReason"):
                self.fetched.pop(document["params"]["requestId"], None)


@contextlib.asynccontextmanager
async def open_page(url: str, folder: Path) -> AsyncIterator[Page]:
    """Open an address in a Chromium that keeps what it has to keep in `folder`."""
    assert CHROMIUM is not None
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *options,
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "--window-size=1280,800",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        port = await asyncio.wait_for(_port(process.stderr), 60)
        drain = asyncio.create_task(process.stderr.read())
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                targets = await answer.json()
            address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket)
                await page.call("Network.enable")
                await page.call("Page.enable")
                await page.call("Page.navigate", url=url)
                try:
                    yield page
                finally:
                    await page.close()
        drain.cancel()
    finally:
        process.terminate()
        await process.wait()


async def _port(errors: asyncio.StreamReader) -> int:
    seen = ""
    while line := await errors.readline():
        seen += line.decode(errors="replace")
        if match := re.search(r"DevTools listening on ws://[^:]+:(\d+)/", seen):
            return int(match[1])
    raise AssertionError(f"Chromium did not start:\n{seen}")

"""Textual's driver for web pages, which leaves when the server has gone, however it went."""

from __future__ import annotations

import asyncio

from textual import messages
from textual.drivers.web_driver import WebDriver

__all__ = ["PageDriver"]


class PageDriver(WebDriver):
    """Draws for a server. Textual's own goes on without one, unseen, until it has something to draw."""

    def start_application_mode(self) -> None:
        """Begin, and remember where the application runs."""
        self._loop = asyncio.get_running_loop()
        super().start_application_mode()

    def run_input_thread(self) -> None:
        """Read what the server sends; leave at its end."""
        super().run_input_thread()
        if not self.exit_event.is_set():
            asyncio.run_coroutine_threadsafe(self._app._post_message(messages.ExitApp()), self._loop)

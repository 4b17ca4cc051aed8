"""An application that handles one key after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from textual import events
from textual.app import App
from textual.message_pump import MessagePump

__all__ = ["KeyByKey"]

_ROUNDS: Final = 2
"""A key goes from the focused widget up to the application, which acts; then the messages of that act do."""


class KeyByKey(App[None]):
    """Handles a key when all that the one before led to is done.

    Textual hands a key to the widget that has the focus when it arrives. Keys that come at once, from a fast typist, a
    slow link or `tmux send-keys`, all go where the first one went: of "/mid" the letters would miss the field that "/"
    opens, and act as keys of the layers.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._typed: deque[events.Key | events.Paste] = deque()

    async def on_event(self, event: events.Event) -> None:
        """Keep what is typed until its turn comes."""
        if not isinstance(event, events.Key | events.Paste) or event.is_forwarded:
            await super().on_event(event)
            return
        self._typed.append(event)
        if len(self._typed) == 1:
            await self._handle_first()

    async def _handle_first(self) -> None:
        await super().on_event(self._typed[0])
        await self._follow(self._way(), _ROUNDS)

    def _way(self) -> Sequence[MessagePump]:
        """Those who a key passes, from the focused widget to the application."""
        return (self.focused or self.screen).ancestors_with_self

    async def _follow(self, way: Sequence[MessagePump], rounds: int) -> None:
        """Call this again once the next of the way has done what waits for it; at the end handle the next key."""
        for at, pump in enumerate(way):
            if pump.call_later(self._follow, way[at + 1 :], rounds):
                return
        if rounds > 1:
            await self._follow(self._way(), rounds - 1)
            return
        self._typed.popleft()
        if self._typed:
            await self._handle_first()

"""An application that handles one key after the other."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from typing import Final

from textual import events
from textual.app import App
from textual.message_pump import MessagePump

from diffusion_xray.tracer.info import printable

from .settings import Settings

__all__ = ["KeyByKey"]

_ROUNDS: Final = 2
"""A key goes from the focused widget up to the application, which acts; then the messages of that act do."""
_PAUSE: Final = 0.02
_PATIENCE: Final = 50
"""How often a screen that holds keys is asked again, a pause between."""


class KeyByKey(App[None]):
    """Obeys the user's settings, and handles a key when all that the one before led to is done.

    Textual hands a key to the widget that has the focus when it arrives. Keys that come at once, from a fast typist, a
    slow link or `tmux send-keys`, all go where the first one went: of "/mid" the letters would miss the field that "/"
    opens, and act as keys of the layers.

    A screen whose view takes the focus with what is read for it says so by `holds_keys`, and is waited for a while.

    Args:
        settings: Those of the user; none when it is None.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self.settings = settings or Settings()
        self._typed: deque[events.Key | events.Paste] = deque()
        self._patience = _PATIENCE

    def obey(self) -> None:
        """Do as the settings say; tell what of them is not understood."""
        settings, problems = self.settings, [self.settings.problem]
        if settings.keys:
            from .keys_command import bindings  # every widget that has keys

            unknown = sorted(settings.keys.keys() - {binding.id for _, binding in bindings()})
            if unknown:
                problems.append(f"no key has the id {', '.join(unknown)}; dxray keys lists them")
            self.set_keymap(dict(settings.keys))
        if settings.theme in self.available_themes:
            self.theme = settings.theme
        elif settings.theme:
            problems.append(f"no theme {settings.theme!r}; there are {', '.join(sorted(self.available_themes))}")
        for problem in filter(None, problems):
            self.notify(printable(problem), title="Settings", severity="warning", markup=False)

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
        if getattr(self.screen, "holds_keys", False) and self._patience:
            self._patience -= 1
            self.set_timer(_PAUSE, functools.partial(self._follow, (), 1))
            return
        self._patience = _PATIENCE
        self._typed.popleft()
        if self._typed:
            await self._handle_first()

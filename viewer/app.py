"""The browser as an application: one screen on one trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import App
from textual.command import Provider

from .loader import Loader
from .model import Snapshot
from .opening import Opening
from .places import Actions, Layers
from .screens.main import MainScreen

__all__ = ["Browser"]


class Browser(App[None]):
    """Shows a trace.

    Args:
        loader: The trace.
        opening: Where to start.
        snapshot: What `loader` has read already; read here when it is None.
        shade: Draw with shades of characters instead of colours; None to do so where the terminal has few colours.
    """

    TITLE = "dxray"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = App.COMMANDS | {Actions, Layers}
    CSS_PATH = "app.tcss"

    def __init__(
        self, loader: Loader, opening: Opening, *, snapshot: Snapshot | None = None, shade: bool | None = None
    ) -> None:
        super().__init__()
        self._loader = loader
        self._opening = opening
        self._snapshot = snapshot or loader.snapshot()
        self._shade = shade

    def on_mount(self) -> None:
        """Show the one screen."""
        shade = self._shade
        if shade is None:
            shade = self.console.color_system in {None, "standard"}
            if shade:
                self.notify(
                    "Few colours here, so pictures are in shades. If the terminal has more: COLORTERM=truecolor"
                )
        self.push_screen(MainScreen(self._loader, self._snapshot, self._opening, shade=shade))

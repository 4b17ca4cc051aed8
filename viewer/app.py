"""The browser as an application: one screen on one trace."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar

from textual.app import App
from textual.command import Provider

from diffusion_xray.tracer.info import printable

from .key_by_key import KeyByKey
from .loader import Loader
from .model import Snapshot
from .opening import Opening
from .pins import Pins
from .places import Actions, Layers, NamedSteps
from .screens.main import MainScreen
from .settings import Settings
from .views.registry import Registry, load_views

__all__ = ["Browser"]

_LOOK_SECONDS = 5.0


class Browser(KeyByKey):
    """Shows a trace.

    Args:
        loader: The trace.
        opening: Where to start.
        snapshot: What `loader` has read already; read here when it is None.
        views: The tabs; all that are installed when it is None.
        shade: Draw with shades of characters instead of colours; None to do so where the terminal has few colours.
        pins: Where pinned layers are kept; nowhere when it is None.
        settings: Those of the user; none when it is None.
    """

    TITLE = "dxray"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = App.COMMANDS | {
        Actions,
        Layers,
        NamedSteps,
    }
    CSS_PATH = "app.tcss"

    def __init__(
        self,
        loader: Loader,
        opening: Opening,
        *,
        snapshot: Snapshot | None = None,
        views: Registry | None = None,
        pins: Pins | None = None,
        settings: Settings | None = None,
        shade: bool | None = None,
    ) -> None:
        super().__init__(settings)
        self._loader = loader
        self._opening = opening
        self._snapshot = snapshot or loader.snapshot()
        self._views = load_views() if views is None else views
        self._shade = shade
        self._pins = pins or Pins()

    def on_mount(self) -> None:
        """Show the one screen."""
        self.obey()
        if not self.is_headless and os.isatty(0):
            self.set_interval(_LOOK_SECONDS, self._leave_if_alone)
        shade = self._shade
        if shade is None:
            shade = self.console.color_system in {None, "standard"}
            if shade:
                self.notify(
                    "Few colours here, so pictures are in shades. If the terminal has more: COLORTERM=truecolor"
                )
        for name, error in self._views.failed.items():
            told, title = printable(f"{type(error).__name__}: {error}"), f"View {printable(name)!r} does not load"
            self.notify(told, title=title, severity="warning", markup=False)
        screen = MainScreen(self._loader, self._snapshot, self._opening, self._views, shade=shade)
        screen.pins = self._pins
        self.push_screen(screen)

    def _leave_if_alone(self) -> None:
        """Leave when the terminal is gone: under `nohup` no signal tells, and input that has ended is read for ever."""
        if not os.isatty(0):
            os._exit(1)  # an orderly end would wait for a terminal that is not there; nothing is open for writing

"""The comparison as an application of its own."""

from __future__ import annotations

from ..key_by_key import KeyByKey
from ..settings import Settings
from .screen import CompareScreen

__all__ = ["CompareApp"]


class CompareApp(KeyByKey):
    """Shows one comparison, and ends when it is left.

    Args:
        screen: The comparison.
        shade: Draw with shades of characters instead of colours; None to do so where the terminal has few colours.
        settings: Those of the user; none when it is None.
    """

    TITLE = "dxray compare"

    def __init__(self, screen: CompareScreen, *, shade: bool | None = None, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._compare = screen
        self._shade = shade

    def on_mount(self) -> None:
        """Show the one screen."""
        self.obey()
        shade = self.console.color_system in {None, "standard"} if self._shade is None else self._shade
        if shade:
            self._compare.draw_in_shades()
        self.push_screen(self._compare)

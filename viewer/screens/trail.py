"""Where one has been: a menu of the places that jumps have left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from diffusion_xray.tracer.info import SiteInfo

from .menu import Choice, Menu

__all__ = ["Spot", "TrailMenu"]


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a trace."""

    tab: str
    """Id of the view."""
    site: SiteInfo | None
    step: int

    @property
    def name(self) -> str:
        """The layer, and which of its tensors where it is not the first output."""
        if self.site is None:
            return "nothing"
        return self.site.name if self.site.array_name == "output" else self.site.key


class TrailMenu(Menu[Spot]):
    """The places that were left, the latest on top; its result is the one to go back to."""

    HOW = "enter goes there · esc"

    def __init__(self, trail: Sequence[Spot]) -> None:
        super().__init__("Where you have been")
        self._spots = trail[::-1]

    def choices(self) -> Sequence[Choice]:
        """A line each."""
        return [Choice("", f"step {spot.step}  {spot.tab}", spot.name) for spot in self._spots]

    def compose(self) -> ComposeResult:
        """The list, or how it comes to be."""
        with Vertical(id="menu", classes="framed"):
            yield self.listed()
            if not self._spots:
                yield Static("Nowhere yet: places are kept when you jump by n, : or the palette.", classes="menu--note")

    def choose(self, at: int) -> None:
        """Go back to a place."""
        self.dismiss(self._spots[at])

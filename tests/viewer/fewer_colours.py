"""What a terminal with fewer colours makes of a screen, for pictures of it."""

from __future__ import annotations

from rich._palettes import EIGHT_BIT_PALETTE, STANDARD_PALETTE
from rich.color import Color as RichColor
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

__all__ = ["FewerColours"]


class FewerColours(LineFilter):
    """Takes every colour for the nearest one of a system, as is done for a terminal that has no others."""

    def __init__(self, system: ColorSystem) -> None:
        super().__init__()
        self._system = system
        self._palette = EIGHT_BIT_PALETTE if system is ColorSystem.EIGHT_BIT else STANDARD_PALETTE

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same text in fewer colours."""
        return [Segment(text, style and self._fewer(style), control) for text, style, control in segments]

    def _fewer(self, style: Style) -> Style:
        return style + Style(color=self._nearest(style.color), bgcolor=self._nearest(style.bgcolor))

    def _nearest(self, colour: RichColor | None) -> RichColor | None:
        if colour is None:
            return None
        number = colour.downgrade(self._system).number
        return colour if number is None else RichColor.from_triplet(self._palette[number])

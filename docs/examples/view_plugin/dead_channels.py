"""A tab that ranks the channels of a feature map by their spread: those that hardly move are dead."""

from __future__ import annotations

from typing import Any

import numpy as np
from textual.binding import Binding
from textual.strip import Strip

from diffusion_xray.viewer.reader import Reader
from diffusion_xray.viewer.views import Request, View
from diffusion_xray.viewer.views.tensors import missing_tensor
from diffusion_xray.viewer.widgets.canvas import Canvas


def read(reader: Reader, request: Request) -> Any:
    """Runs in a thread: the standard deviation of every channel."""
    tensor = reader.tensor(request.site, request.step)
    if tensor is None or tensor.ndim != 4:
        return None
    return tensor.astype(np.float64).std(axis=(0, 2, 3))


class DeadChannels(Canvas):
    """A line a channel. Draws from `self.scene` alone; `scene.found` is what `read` returned."""

    ascending = True

    def paint(self, width: int, height: int) -> list[Strip]:
        """The lines from the top; those that do not fit are cut."""
        spread = self.scene.found if self.scene else None
        if spread is None:
            return self.explain("Only feature maps (batch, channel, height, width) have channels.")
        order = np.argsort(spread if self.ascending else -spread)[:height]
        bars = (spread[order] / max(spread.max(), 1e-30) * (width - 24)).round().astype(int)
        return [
            self.line((f" channel {at:<6}", "muted"), f"{spread[at]:<8.3g}", ("█" * bar, "accent"))
            for at, bar in zip(order.tolist(), bars.tolist(), strict=True)
        ]

    def action_turn(self) -> None:
        """Show the other end first."""
        self.ascending = not self.ascending
        self.redraw()


VIEW = View(
    id="channels",
    title="Channels",
    about="Channels by their spread, dead ones first",
    widget=DeadChannels,
    missing=missing_tensor,
    read=read,
    keys=(Binding("r", "turn", "Turn", id="channels.turn", tooltip="Dead or lively channels first"),),
)

"""The part of the main screen that jumps: to faults, to layers and steps by their names, and back."""

from __future__ import annotations

from typing import Final

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from diffusion_xray.tracer.errors import SiteNotFoundError
from diffusion_xray.tracer.info import SiteInfo, printable

from ..faults import Fault
from ..goto import find_place
from ..order import ranked
from ..widgets.layer_tree import LayerTree
from .trail import Spot, TrailMenu
from .walk import WalkScreen

__all__ = ["JumpScreen"]

_MOST_PLACES: Final = 100


class JumpScreen(WalkScreen):
    """Keeps the places that were left by a jump."""

    _fault = -1
    """Which fault was gone to last."""
    _trail: tuple[Spot, ...] = ()
    """Places that were left, the latest last."""
    _asked_from: Widget | None = None
    """What had the focus before the field to go somewhere."""

    def reveal(self, site: SiteInfo | None, step: int) -> None:
        """Select a tensor, and its layer in the tree, wherever that is."""
        raise NotImplementedError

    def go_to_layer(self, name: str) -> None:
        """Choose a layer, and show it in the tree."""
        layer = self.snapshot.layers.get(name)
        if layer is not None and layer.module is not None:
            self._remember()
            self.reveal(layer.module.site, self._step)

    @on(Input.Submitted, "#goto")
    def _goto_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            layer, step = find_place(event.value, self.snapshot)
        except SiteNotFoundError as error:
            self.notify(printable(error), severity="warning", markup=False)
            return
        self.close_goto()
        self._remember()
        if step is not None:
            self.go_to_step(step)
        if layer is not None and layer.module is not None:
            self.reveal(layer.module.site, self._step)

    def action_goto(self) -> None:
        """Ask for a step or a layer to go to."""
        self.maximized = None
        field = self.query_one("#goto", Input)
        if self.focused is not field:
            self._asked_from = self.focused
        field.display = True
        self.set_focus(field)

    def close_goto(self) -> None:
        """Put the field away, and give the keys back to who had them."""
        field = self.query_one("#goto", Input)
        field.value = ""
        field.display = False
        back = self._asked_from
        (back if back is not None and back.focusable and back.is_on_screen else self.query_one(LayerTree)).focus()

    def action_fault(self, by: int) -> None:
        """Go to the next fault, the first time to the earliest."""
        faults = self.snapshot.faults
        if not faults:
            self.notify("Every value is finite.", timeout=2)
            return
        self._fault = 0 if self._fault < 0 else (self._fault + by) % len(faults)
        self._go_to_fault(faults[self._fault])
        self.notify(f"fault {self._fault + 1} of {len(faults)}, causes first", timeout=2)

    def action_narrow(self) -> None:
        """Go to the first value that float16 could hardly hold."""
        if not self.snapshot.narrow:
            self.notify("Every value is well within float16.", timeout=2)
            return
        self._go_to_fault(self.snapshot.narrow[0])

    def action_extreme(self, order: str) -> None:
        """Go to the layer that is first in an order: "largest" or "changed"."""
        layers = [layer for layer in self.snapshot.layers.values() if layer.module and layer.module.site.stepped]
        statistic = "abs_max" if order == "largest" else self._look.statistic
        best = ranked(layers, self.snapshot, statistic, "largest" if order == "largest" else "changed")
        if best:
            self.go_to_layer(best[0][0].name)

    async def action_last_place(self) -> None:
        """Go back to where the last jump was made from."""
        if not self._trail:
            self.notify("Nowhere to go back to: places are kept when you jump by n, : or the palette.", timeout=3)
            return
        *rest, spot = self._trail
        self._trail = tuple(rest)
        await self._return_to(spot)

    def action_trail(self) -> None:
        """Choose one of the places that were left."""
        self.app.push_screen(TrailMenu(self._trail), self._chosen)

    async def _chosen(self, spot: Spot | None) -> None:
        if spot is not None:
            self._remember()
            await self._return_to(spot)

    async def _return_to(self, spot: Spot) -> None:
        await self.open_page(spot.tab)
        self.go_to_step(spot.step)
        self.reveal(spot.site, self._step)

    def _go_to_fault(self, fault: Fault) -> None:
        self._remember()
        if fault.step is not None:
            self.go_to_step(fault.step)
        self.reveal(fault.site, self._step)

    def _remember(self) -> None:
        """Keep the place that is about to be left."""
        self._trail = (*self._trail, Spot(self._view.id, self._site, self._step))[-_MOST_PLACES:]

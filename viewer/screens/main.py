"""The main screen: holds the selection, hands it to the widgets, and has read what they need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import ContentSwitcher, Input, Static

from diffusion_xray.tracer.errors import SiteNotFoundError
from diffusion_xray.tracer.info import SiteInfo, printable

from ..export.selection import Selection
from ..export.text import full_path
from ..goto import find_place
from ..look import CHANGES
from ..model import Snapshot
from ..opening import find_opening
from ..order import ORDERS, ranked
from ..widgets.explanation import Explanation
from ..widgets.header import TraceHeader
from ..widgets.key_line import KeyLine
from ..widgets.layer_tree import Arrangement, LayerTree
from ..widgets.step_strip import StepStrip
from ..widgets.tab_bar import TabBar
from .export import CopyMenu, ExportMenu
from .feed import FeedScreen
from .keys import KEYS
from .stage import StageScreen

__all__ = ["MainScreen"]

_FRAMES_PER_SECOND = 6
_MOST_PLACES = 100


class MainScreen(StageScreen):
    """Layers on the left, the view in the middle, the steps below."""

    BINDINGS: ClassVar[list[BindingType]] = list(KEYS)
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (100, "-wide")]  # noqa: RUF012 - as the base class declares it
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high")]  # noqa: RUF012 - likewise
    HELP = "Left the layers, below the steps. A mark `✗31` says: not finite from step 31."

    _fault = -1
    """Which fault was gone to last."""
    _trail: tuple[tuple[str, SiteInfo | None, int], ...] = ()
    """Places that were left by a jump: view, site and step of each."""

    def compose(self) -> ComposeResult:
        """Lay out the widgets."""
        yield TraceHeader(id="header")
        with Horizontal(id="body"):
            with Vertical(id="side"):
                yield Input(placeholder="words of a layer's name", id="filter", compact=True)
                yield LayerTree(id="tree")
            with Vertical(id="centre"):
                yield TabBar()
                with ContentSwitcher(id="pages"):
                    yield Explanation(id="missing")
        yield StepStrip(id="steps")
        yield Input(placeholder="step 31, t=519, sigma=2, or words of a layer's name", id="goto", compact=True)
        yield Static("dxray needs 60 × 16 characters: make the terminal larger", id="small", markup=False)
        yield KeyLine(id="footer")

    async def on_mount(self) -> None:
        """Draw from the statistics first, then read the rest."""
        await self.open_page(self._view.id)
        tree = self.query_one(LayerTree)
        tree.choose(self._layer, unfold=True)
        tree.focus()
        self.select(self._site, self._step)
        if self.snapshot.is_live:
            self.look_again(busy=True)

    def show(self) -> None:
        """Hand what is on show to the widgets, and say how the layers are listed."""
        super().show()
        side = self.query_one("#side")
        how = str(self.query_one(LayerTree).arrangement)
        titles = (f"Layers · {how}" if how else "Layers", self._look.statistic)
        if (
            side.border_title,
            side.border_subtitle,
        ) != titles:  # setting them draws the box, whether they change or not
            side.border_title, side.border_subtitle = titles

    def go_to_layer(self, name: str) -> None:
        """Choose a layer, and show it in the tree."""
        layer = self.snapshot.layers.get(name)
        if layer is not None and layer.module is not None:
            self._remember()
            self._reveal(layer.module.site, self._step)

    def go_to_step(self, step: int) -> None:
        """Show a step; one that does not exist is taken as the nearest that does."""
        last = max(self.snapshot.steps - 1, 0)
        self._following = self.snapshot.is_live and step >= last
        if self._following:
            self._followed_to = self.snapshot.steps
        self.select(self._site, min(max(step, 0), last))

    @on(LayerTree.Highlighted)
    def _layer_highlighted(self, message: LayerTree.Highlighted) -> None:
        layer = message.layer if message.layer.module else next((c for c in message.layer.walk() if c.module), None)
        self.select(layer.module.site if layer and layer.module else None, self._step)

    @on(LayerTree.Opened)
    def _layer_opened(self) -> None:
        if self.has_class("-narrow"):
            self.remove_class("-flip")

    @on(StepStrip.Chosen)
    def _step_chosen(self, message: StepStrip.Chosen) -> None:
        self.go_to_step(message.step)

    @on(TabBar.Chosen)
    async def _tab_chosen(self, message: TabBar.Chosen) -> None:
        await self.action_tab(message.tab)

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._arrange(query=event.value.strip())

    @on(Input.Submitted, "#filter")
    def _filter_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.query_one(LayerTree).focus()

    @on(Input.Submitted, "#goto")
    def _goto_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            layer, step = find_place(event.value, self.snapshot)
        except SiteNotFoundError as error:
            self.notify(printable(error), severity="warning", markup=False)
            return
        self._close_goto()
        self._remember()
        if step is not None:
            self.go_to_step(step)
        if layer is not None and layer.module is not None:
            self._reveal(layer.module.site, self._step)

    def action_step(self, by: int) -> None:
        """Go some steps on or back."""
        self.go_to_step(self._step + by)

    def action_step_to(self, step: int) -> None:
        """Go to a step, negative from the end."""
        self.go_to_step(step if step >= 0 else self.snapshot.steps + step)

    def action_play(self) -> None:
        """Walk through the steps by itself, or stop."""
        if self._player is not None:
            self._player.stop()
            self._player = None
        elif self.snapshot.steps > 1:
            if self._step >= self.snapshot.steps - 1:
                self.go_to_step(0)
            self._player = self.set_interval(1 / _FRAMES_PER_SECOND, self._play_on)
        self.show()

    def action_follow(self) -> None:
        """Go to the newest step, and stay with it."""
        if self.snapshot.is_live:
            self.go_to_step(self.snapshot.steps - 1)
        else:
            self.notify("Nothing to follow: this trace is not being written.")

    def action_filter(self) -> None:
        """Ask for words of layers' names."""
        self.maximized = None
        if self.has_class("-narrow"):
            self.add_class("-flip")
        else:
            self.remove_class("-flip")
        field = self.query_one("#filter", Input)
        field.display = True
        self.set_focus(field)  # now, as the next letter may be here already

    def action_fault(self, by: int) -> None:
        """Go to the next fault, the first time to the earliest."""
        faults = self.snapshot.faults
        if not faults:
            self.notify("Every value is finite.", timeout=2)
            return
        self._fault = 0 if self._fault < 0 else (self._fault + by) % len(faults)
        fault = faults[self._fault]
        self._remember()
        if fault.step >= 0:
            self.go_to_step(fault.step)
        self._reveal(fault.site, self._step)
        self.notify(f"fault {self._fault + 1} of {len(faults)}, causes first", timeout=2)

    async def action_tab(self, tab: str) -> None:
        """Show another view."""
        if await self.open_page(tab):
            self.select(self._site, self._step)
            if self.focused is None:
                self.query_one(LayerTree).focus()

    def action_tree(self) -> None:
        """Show or hide the layers."""
        self.toggle_class("-flip")
        if self.query_one("#side").display:
            self.query_one(LayerTree).focus()

    def action_next_tensor(self) -> None:
        """Choose the next tensor of the layer."""
        layer = self.snapshot.layers.get(self._layer)
        sites = layer.module.sites if layer and layer.module else ()
        if self._site in sites and len(sites) > 1:
            self.select(sites[(sites.index(self._site) + 1) % len(sites)], self._step)
        else:
            self.notify("This layer has one tensor only.")

    def action_look(self, change: str) -> None:
        """Change how things are drawn."""
        self._look = CHANGES[change](self._look)
        self.show()

    def action_zoom(self) -> None:
        """Give the view the whole screen, or take it back."""
        self.maximized = None if self.maximized is not None else self.shown

    def action_goto(self) -> None:
        """Ask for a step or a layer to go to."""
        self.maximized = None
        field = self.query_one("#goto", Input)
        field.display = True
        self.set_focus(field)  # now, as the next letter may be here already

    async def action_last_place(self) -> None:
        """Go back to where the last jump was made from."""
        if not self._trail:
            self.notify("Nowhere to go back to: places are kept when you jump by n, : or the palette.", timeout=3)
            return
        *rest, (tab, site, step) = self._trail
        self._trail = tuple(rest)
        await self.open_page(tab)
        self.go_to_step(step)
        self._reveal(site, self._step)

    def action_sort(self) -> None:
        """Another order of the layers."""
        order = self.query_one(LayerTree).arrangement.order
        self._arrange(order=ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)])

    def action_only(self, what: str) -> None:
        """Show some layers only, or all again: "faults" or "pinned"; or a list rather than a tree: "flat"."""
        self._arrange(**{what: not getattr(self.query_one(LayerTree).arrangement, what)})

    def action_extreme(self, order: str) -> None:
        """Go to the layer that is first in an order: "largest" or "changed"."""
        layers = [layer for layer in self.snapshot.layers.values() if layer.module and layer.module.site.stepped]
        statistic = "abs_max" if order == "largest" else self._look.statistic
        best = ranked(layers, self.snapshot, statistic, "largest" if order == "largest" else "changed")
        if best:
            self.go_to_layer(best[0][0].name)

    def action_pin(self) -> None:
        """Pin the layer, or let go of it."""
        self.query_one(LayerTree).pin()

    def action_export(self) -> None:
        """Write what is chosen into a file."""
        self.app.push_screen(ExportMenu(self._selection()))

    def action_copy(self) -> None:
        """Copy a value, a path, a command or code."""
        self.app.push_screen(CopyMenu(self._selection()))

    def _selection(self) -> Selection:
        site, step, trace = self._site, self._step, self._loader.trace
        return Selection(
            full_path(str(trace.path)),
            self.snapshot,
            site,
            step,
            tab=self._view.id,
            look=self._look,
            read=lambda: trace.tensor(site, step) if site else None,
        )

    def action_help(self) -> None:
        """Show or hide the keys."""
        if self.query("HelpPanel"):
            self.app.action_hide_help_panel()
        else:
            self.app.action_show_help_panel()

    def action_back(self) -> None:
        """Leave whatever was entered last: filter, zoom, help."""
        if self.query_one("#goto", Input).display:
            self._close_goto()
        elif self.query_one("#filter", Input).display:
            self._clear_filter()
        elif self.maximized is not None:
            self.maximized = None
        elif self.query("HelpPanel"):
            self.app.action_hide_help_panel()
        elif str(self.query_one(LayerTree).arrangement):
            self._arrange(order="called", flat=False, faults=False, pinned=False)

    def _arrange(self, **changes: Any) -> None:
        tree = self.query_one(LayerTree)
        tree.arrangement = replace(tree.arrangement, **changes)
        self.show()

    def _clear_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self._arrange(query="")
        tree = self.query_one(LayerTree)
        tree.choose(self._layer)
        tree.focus()

    def _close_goto(self) -> None:
        field = self.query_one("#goto", Input)
        field.value = ""
        field.display = False
        self.query_one(LayerTree).focus()

    def _remember(self) -> None:
        """Keep the place that is about to be left."""
        self._trail = (*self._trail, (self._view.id, self._site, self._step))[-_MOST_PLACES:]

    def _reveal(self, site: SiteInfo | None, step: int) -> None:
        """Select a tensor, and its layer in the tree, where filters may hide it."""
        tree = self.query_one(LayerTree)
        self.select(site, step)
        if site is not None and not tree.lists(site.name):
            tree.arrangement = Arrangement()
            self._clear_filter()
        tree.choose(self._layer)

    def _play_on(self) -> None:
        if self._step + 1 < self.snapshot.steps:
            self.go_to_step(self._step + 1)
        elif self._player is not None:
            self.action_play()

    @on(FeedScreen.Refreshed)
    def _refreshed(self, message: FeedScreen.Refreshed) -> None:
        fresh, old = message.snapshot, self.snapshot
        if fresh is not None and fresh is not old:
            self._take(fresh)
        if self.snapshot.is_live:
            self.look_again(busy=self.snapshot is not old)

    def _take(self, fresh: Snapshot) -> None:
        """Show what a run wrote since the last look."""
        self.snapshot = fresh
        layer = fresh.layers.get(self._layer)
        sites = layer.module.sites if layer and layer.module else ()
        key = self._site.key if self._site else ""
        site = next((site for site in sites if site.key == key), None)
        if site is None:
            site = find_opening(fresh).site
        step = fresh.steps - 1 if self._following else self._step
        if self._following:
            self._followed_to = fresh.steps
        first = not self._layer
        self.select(site, max(step, 0))
        self.query_one(LayerTree).choose(self._layer, unfold=first)

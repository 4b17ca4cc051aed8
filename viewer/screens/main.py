"""The main screen: holds the selection, hands it to the widgets, and has read what they need."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import ContentSwitcher, Footer, HelpPanel, Input, Static

from diffusion_xray.tracer.info import SiteInfo, printable

from ..loader import Loader
from ..look import CHANGES, Look
from ..model import Snapshot
from ..opening import Opening, find_opening
from ..scene import Detail, Scene, Tab
from ..widgets.canvas import Canvas
from ..widgets.header import TraceHeader
from ..widgets.heatmap import HeatmapView
from ..widgets.histogram import HistogramView
from ..widgets.layer_tree import LayerTree
from ..widgets.overview import Overview
from ..widgets.preview import Preview
from ..widgets.statistics import StatisticsView
from ..widgets.step_strip import StepStrip
from ..widgets.tab_bar import TabBar
from .feed import FeedScreen
from .keys import KEYS

__all__ = ["MainScreen"]

_FRAMES_PER_SECOND = 6


class MainScreen(FeedScreen):
    """Layers on the left, the view in the middle, the steps below."""

    BINDINGS: ClassVar[list[BindingType]] = list(KEYS)
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (100, "-wide")]  # noqa: RUF012 - as the base class declares it
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high")]  # noqa: RUF012 - likewise
    HELP = "Left the layers, below the steps. A mark `✗31` says: not finite from step 31."

    def __init__(self, loader: Loader, snapshot: Snapshot, opening: Opening, *, shade: bool) -> None:
        super().__init__(loader)
        self.snapshot = snapshot
        self._layer = opening.layer
        self._site = opening.site
        self._step = opening.step
        self._tab: Tab = opening.tab
        self._look = Look(shade=shade)
        self._detail = Detail()
        self._waiting = True
        self._following = snapshot.is_live and opening.step >= snapshot.steps - 1
        self._fault = -1
        self._player: Timer | None = None
        self._told = ""

    def compose(self) -> ComposeResult:
        """Lay out the widgets."""
        yield TraceHeader(id="header")
        with Horizontal(id="body"):
            with Vertical(id="side") as side:
                side.border_title = "Layers"
                yield Input(placeholder="words of a layer's name", id="filter", compact=True)
                yield LayerTree(id="tree")
            with Vertical(id="centre"):
                yield TabBar()
                with ContentSwitcher(id="pages", initial=self._tab):
                    with Horizontal(id="overview"):
                        yield Overview(id="facts")
                        yield Preview(id="preview")
                    yield StatisticsView(id="stats")
                    yield HistogramView(id="hist")
                    yield HeatmapView(id="image")
        yield StepStrip(id="steps")
        yield Static("dxray needs 60 × 16 characters: make the terminal larger", id="small", markup=False)
        yield Footer(id="footer")

    def on_mount(self) -> None:
        """Draw from the statistics first, then read the rest."""
        self._show()
        tree = self.query_one(LayerTree)
        tree.choose(self._layer, unfold=True)
        tree.focus()
        self._ask()
        if self.snapshot.is_live:
            self.look_again(busy=True)

    def go_to_layer(self, name: str) -> None:
        """Choose a layer, and show it in the tree."""
        layer = self.snapshot.layers.get(name)
        if layer is not None and layer.module is not None:
            self._clear_filter()
            self._select(layer.module.site, self._step)
            self.query_one(LayerTree).choose(name)

    def go_to_step(self, step: int) -> None:
        """Show a step; one that does not exist is taken as the nearest that does."""
        last = max(self.snapshot.steps - 1, 0)
        self._following = self.snapshot.is_live and step >= last
        self._select(self._site, min(max(step, 0), last))

    @on(LayerTree.Highlighted)
    def _layer_highlighted(self, message: LayerTree.Highlighted) -> None:
        layer = message.layer if message.layer.module else next((c for c in message.layer.walk() if c.module), None)
        self._select(layer.module.site if layer and layer.module else None, self._step)

    @on(LayerTree.Opened)
    def _layer_opened(self) -> None:
        if self.has_class("-narrow"):
            self.remove_class("-flip")

    @on(StepStrip.Chosen)
    def _step_chosen(self, message: StepStrip.Chosen) -> None:
        self.go_to_step(message.step)

    @on(TabBar.Chosen)
    def _tab_chosen(self, message: TabBar.Chosen) -> None:
        self.action_tab(message.tab)

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.query_one(LayerTree).query_text = event.value.strip()

    @on(Input.Submitted, "#filter")
    def _filter_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.query_one(LayerTree).focus()

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
        self._show()

    def action_follow(self) -> None:
        """Go to the newest step, and stay with it."""
        if self.snapshot.is_live:
            self.go_to_step(self.snapshot.steps - 1)
        else:
            self.notify("Nothing to follow: this trace is not being written.")

    def action_filter(self) -> None:
        """Ask for words of layers' names."""
        if self.has_class("-narrow"):
            self.add_class("-flip")
        else:
            self.remove_class("-flip")
        field = self.query_one("#filter", Input)
        field.add_class("-open")
        field.focus()

    def action_fault(self, by: int) -> None:
        """Go to the next fault, the first time to the earliest."""
        faults = self.snapshot.faults
        if not faults:
            self.notify("Every value is finite.", timeout=2)
            return
        self._fault = 0 if self._fault < 0 else (self._fault + by) % len(faults)
        fault = faults[self._fault]
        self._clear_filter()
        if fault.step >= 0:
            self.go_to_step(fault.step)
        self._select(fault.site, self._step)
        self.query_one(LayerTree).choose(fault.site.name)
        self.notify(f"fault {self._fault + 1} of {len(faults)}, causes first", timeout=2)

    def action_tab(self, tab: Tab) -> None:
        """Show another view."""
        self._tab = tab
        self.query_one("#pages", ContentSwitcher).current = tab
        if self.maximized is not None:
            self.maximized = self._page()
        self._select(self._site, self._step)

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
            self._select(sites[(sites.index(self._site) + 1) % len(sites)], self._step)
        else:
            self.notify("This layer has one tensor only.")

    def action_look(self, change: str) -> None:
        """Change how things are drawn."""
        self._look = CHANGES[change](self._look)
        self._show()

    def action_zoom(self) -> None:
        """Give the view the whole screen, or take it back."""
        self.maximized = None if self.maximized is not None else self._page()

    def action_help(self) -> None:
        """Show or hide the keys."""
        if self.query(HelpPanel):
            self.app.action_hide_help_panel()
        else:
            self.app.action_show_help_panel()

    def action_back(self) -> None:
        """Leave whatever was entered last: filter, zoom, help."""
        if self.query_one("#filter", Input).has_class("-open"):
            self._clear_filter()
        elif self.maximized is not None:
            self.maximized = None
        elif self.query(HelpPanel):
            self.app.action_hide_help_panel()

    def _page(self) -> Any:
        return self.query_one(f"#{self._tab}")

    def _clear_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        field.remove_class("-open")
        tree = self.query_one(LayerTree)
        tree.query_text = ""
        tree.choose(self._layer)
        tree.focus()

    def _play_on(self) -> None:
        if self._step + 1 < self.snapshot.steps:
            self.go_to_step(self._step + 1)
        elif self._player is not None:
            self.action_play()

    def _select(self, site: SiteInfo | None, step: int) -> None:
        if site is not self._site:
            self._site = site
            self._layer = site.name if site else ""
            self._detail = Detail(preview=self._detail.preview, preview_x0=self._detail.preview_x0)
        self._step = step
        self._waiting = True
        self._show()
        self._ask()

    def _ask(self) -> None:
        self.read_soon(self._site, self._step, self._tab, steps=self.snapshot.steps)

    def _show(self) -> None:
        scene = Scene(
            snapshot=self.snapshot,
            site=self._site,
            step=self._step,
            look=self._look,
            tab=self._tab,
            detail=self._detail,
            loading=self._waiting,
            playing=self._player is not None,
            following=self._following,
        )
        for canvas in self.query(Canvas):
            canvas.scene = scene
        self.query_one("#preview").set_class(not self.snapshot.has_previews, "-none")
        self.query_one("#side").border_subtitle = self._look.statistic

    @on(FeedScreen.Read)
    def _arrived(self, message: FeedScreen.Read) -> None:
        if (message.site, message.step, message.tab) != (self._site, self._step, self._tab):
            return
        self._detail, self._waiting = message.detail, False
        if message.detail.error and message.detail.error != self._told:
            self._told = message.detail.error
            self.notify(printable(self._told), title="Not readable", severity="error", markup=False)
        self._show()

    @on(FeedScreen.Refreshed)
    def _refreshed(self, message: FeedScreen.Refreshed) -> None:
        fresh, old = message.snapshot, self.snapshot
        changed = fresh is not None and ((fresh.steps, fresh.modules, fresh.info) != (old.steps, old.modules, old.info))
        if fresh is not None and changed:
            self._take(fresh)
        if self.snapshot.is_live:
            self.look_again(busy=changed)

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
        first = not self._layer
        self._select(site, max(step, 0))
        self.query_one(LayerTree).choose(self._layer, unfold=first)

"""The main screen: holds the selection, hands it to the widgets, and has read what they need."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingsMap, BindingType
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Footer, HelpPanel, Input, Static

from diffusion_xray.tracer.info import SiteInfo, printable

from ..loader import Answer, Loader
from ..look import CHANGES, Look
from ..model import Snapshot
from ..opening import Opening, find_opening
from ..scene import Scene
from ..views.protocol import Missing, Request
from ..views.registry import Registry
from ..widgets.canvas import Canvas
from ..widgets.explanation import Explanation
from ..widgets.header import TraceHeader
from ..widgets.layer_tree import LayerTree
from ..widgets.step_strip import StepStrip
from ..widgets.tab_bar import TabBar
from .feed import FeedScreen
from .keys import KEYS, page_keys, tab_keys

__all__ = ["MainScreen"]

_FRAMES_PER_SECOND = 6


class MainScreen(FeedScreen):
    """Layers on the left, the view in the middle, the steps below."""

    BINDINGS: ClassVar[list[BindingType]] = list(KEYS)
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (100, "-wide")]  # noqa: RUF012 - as the base class declares it
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high")]  # noqa: RUF012 - likewise
    HELP = "Left the layers, below the steps. A mark `✗31` says: not finite from step 31."

    def __init__(
        self, loader: Loader, snapshot: Snapshot, opening: Opening, views: Registry, *, shade: bool = False
    ) -> None:
        super().__init__(loader)
        self.views = views
        self.snapshot = snapshot
        self._layer = opening.layer
        self._site = opening.site
        self._step = opening.step
        self._view = views[opening.tab]
        self._wishes: dict[str, Hashable] = {} if opening.wish is None else {opening.tab: opening.wish}
        self._look = Look(shade=shade)
        self._answer: Answer | None = None
        self._waiting = True
        self._following = snapshot.is_live and opening.step >= snapshot.steps - 1
        self._fault = -1
        self._player: Timer | None = None
        self._told = ""
        self._own_bindings = self._bindings.copy()

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
                with ContentSwitcher(id="pages"):
                    yield Explanation(id="missing")
        yield StepStrip(id="steps")
        yield Static("dxray needs 60 × 16 characters: make the terminal larger", id="small", markup=False)
        yield Footer(id="footer")

    async def on_mount(self) -> None:
        """Draw from the statistics first, then read the rest."""
        await self._open_page(self._view.id)
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
    async def _tab_chosen(self, message: TabBar.Chosen) -> None:
        await self.action_tab(message.tab)

    @on(Canvas.Wished)
    def _wished(self, message: Canvas.Wished) -> None:
        self._wishes[self._view.id] = message.wish
        self._select(self._site, self._step)

    @on(Canvas.Failed)
    def _failed(self, message: Canvas.Failed) -> None:
        self._tell(message.error, title=f"View {self._view.id!r} failed")

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

    async def action_tab(self, tab: str) -> None:
        """Show another view."""
        if await self._open_page(tab):
            self._select(self._site, self._step)

    async def action_page(self, action: str) -> None:
        """Do what a key of the view says."""
        try:
            await self.app.run_action(action, self._page())
        except Exception as error:
            if self._view.id not in self.views.foreign:
                raise
            self._tell(f"{type(error).__name__}: {error}", title=f"View {self._view.id!r} failed")

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
        shown = self.query_one("#pages", ContentSwitcher).visible_content
        self.maximized = None if self.maximized is not None else shown

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

    def all_keys(self) -> list[Binding]:
        """The keys that hold now: those of the screen, of the tabs and of the view shown."""
        return [*KEYS, *tab_keys(self.views.values()), *page_keys(self._view)]

    @property
    def scene(self) -> Scene:
        """What is on show."""
        answer = self._answer
        return Scene(
            snapshot=self.snapshot,
            site=self._site,
            step=self._step,
            view=self._view,
            views=self.views,
            look=self._look,
            wish=self._wishes.get(self._view.id),
            found=answer.found if answer else None,
            error=answer.error if answer else "",
            loading=self._waiting,
            playing=self._player is not None,
            following=self._following,
        )

    async def _open_page(self, tab: str) -> bool:
        """Make a view the one shown; False where it cannot be made, which is told."""
        view = self.views[tab]
        if not self.query(f"#{tab}"):
            try:
                page = view.widget()
            except Exception as error:
                if tab not in self.views.foreign:
                    raise
                self._tell(f"{type(error).__name__}: {error}", title=f"View {tab!r} cannot be opened")
                if view is self._view:
                    return await self._open_page(next(iter(self.views)))
                return False
            for canvas in page.walk_children(Canvas, with_self=True):
                canvas.forgiving = tab in self.views.foreign
            await self.query_one("#pages", ContentSwitcher).add_content(page, id=tab)
        self._view, self._answer = view, None
        self._bindings = self._own_bindings.copy()
        for more in (tab_keys(self.views.values()), page_keys(view)):  # the view's win over the screen's
            self._bindings.key_to_bindings.update(BindingsMap(more).key_to_bindings)
        self._show()
        self.refresh_bindings()
        return True

    def _page(self) -> Widget:
        return self.query_one(f"#{self._view.id}")

    def _tell(self, error: str, *, title: str) -> None:
        if error != self._told:
            self._told = error
            self.notify(printable(error), title=printable(title), severity="error", markup=False)

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
            self._answer = None
        self._step = step
        self._waiting = True
        self._show()
        self._ask()

    def _ask(self) -> None:
        if self._missing(self.scene) is None:
            self.read_soon(self._view, self.request)

    @property
    def request(self) -> Request:
        """What is to be read for what is on show."""
        return Request(self._site, self._step, self.snapshot.steps, self._wishes.get(self._view.id))

    def _missing(self, scene: Scene) -> Missing | None:
        try:
            return self._view.missing(scene)
        except Exception as error:
            if self._view.id not in self.views.foreign:
                raise
            return Missing(f"? This view failed: {type(error).__name__}: {error}")

    def _show(self) -> None:
        scene = self.scene
        missing = self._missing(scene)
        self.query_one("#missing", Explanation).missing = missing
        pages = self.query_one("#pages", ContentSwitcher)
        pages.current = self._view.id if missing is None else "missing"
        shown = pages.visible_content
        if self.maximized is not None:
            self.maximized = shown
        hidden = {page for page in pages.children if page is not shown}
        for canvas in self.query(Canvas):
            if hidden.isdisjoint(canvas.ancestors_with_self):
                canvas.scene = scene
        self.query_one("#side").border_subtitle = self._look.statistic

    @on(FeedScreen.Read)
    def _arrived(self, message: FeedScreen.Read) -> None:
        if message.view is not self._view or message.request != self.request:
            return
        self._answer, self._waiting = message.answer, False
        if message.answer.error:
            self._tell(message.answer.error, title="Not readable")
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

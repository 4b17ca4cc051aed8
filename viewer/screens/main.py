"""The main screen: its widgets, how the layers are listed, and what its other keys do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import ContentSwitcher, Input, Static

from diffusion_xray.tracer.info import SiteInfo

from ..arrangement import Arrangement
from ..export.selection import Selection
from ..export.text import full_path
from ..look import CHANGES
from ..order import ORDERS
from ..pins import Pins
from ..widgets.explanation import Explanation
from ..widgets.header import TraceHeader
from ..widgets.key_line import KeyLine
from ..widgets.layer_tree import LayerTree
from ..widgets.preview import Preview
from ..widgets.step_strip import StepStrip
from ..widgets.tab_bar import TabBar
from .export import CopyMenu, ExportMenu
from .help import KeyHelp, by_topic
from .jumps import JumpScreen
from .keys import KEYS, page_keys

if TYPE_CHECKING:
    from ..compare.screen import CompareScreen

__all__ = ["MainScreen"]


class MainScreen(JumpScreen):
    """Layers on the left, the view in the middle, what the step looks like beside it, the steps below."""

    BINDINGS: ClassVar[list[BindingType]] = list(KEYS)
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (100, "-wide"), (150, "-broad")]  # noqa: RUF012 - as the base class declares it
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high")]  # noqa: RUF012 - likewise
    AUTO_FOCUS = ""  # coming back from a menu, Textual would choose the first field, also where it is hidden
    HELP = "Left the layers, below the steps. A mark `✗31` says: not finite from step 31."

    pins = Pins()
    """Where pinned layers are kept."""

    def compose(self) -> ComposeResult:
        """Lay out the widgets."""
        yield TraceHeader(id="header")
        with Horizontal(id="body"):
            with Vertical(id="side"):
                yield Input(placeholder="words of a layer's name", id="filter", compact=True)
                yield LayerTree(id="tree")
            with Vertical(id="centre"):
                yield TabBar()
                with Horizontal(id="stage"):
                    with ContentSwitcher(id="pages"):
                        yield Explanation(id="missing")
                    yield Preview(id="preview")
        yield StepStrip(id="steps")
        yield Input(placeholder="step 31, t=519, sigma=2, or words of a layer's name", id="goto", compact=True)
        yield Static("dxray needs 60 × 16 characters: make the terminal larger", id="small", markup=False)
        yield KeyLine(id="footer")

    async def on_mount(self) -> None:
        """Draw from the statistics first, then read the rest."""
        await self.open_page(self._view.id)
        tree = self.query_one(LayerTree)
        tree.pins = self.pins.read()
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

    def reveal(self, site: SiteInfo | None, step: int) -> None:
        """Select a tensor, and its layer in the tree, where filters may hide it."""
        tree = self.query_one(LayerTree)
        self.select(site, step)
        if site is not None and not tree.lists(site.name):
            tree.arrangement = Arrangement()
            self._clear_filter()
        tree.choose(self._layer)

    @on(LayerTree.Highlighted)
    def _layer_highlighted(self, message: LayerTree.Highlighted) -> None:
        layer = message.layer if message.layer.module else next((c for c in message.layer.walk() if c.module), None)
        self.select(layer.module.site if layer and layer.module else None, self._step)

    @on(LayerTree.Opened)
    def _layer_opened(self) -> None:
        if self.has_class("-narrow"):
            self.remove_class("-flip")

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

    def action_filter(self) -> None:
        """Ask for words of layers' names."""
        self.maximized = None
        if self.has_class("-narrow"):
            self.add_class("-flip")
        else:
            self.remove_class("-flip")
        field = self.query_one("#filter", Input)
        field.display = True
        self.set_focus(field)

    def action_sort(self) -> None:
        """Another order of the layers."""
        tree = self.query_one(LayerTree)
        order = ORDERS[(ORDERS.index(tree.arrangement.order) + 1) % len(ORDERS)]
        self._arrange(order=order)
        if order != "called":
            self._remember()
            tree.choose_first()

    def action_only(self, what: str) -> None:
        """Show some layers only, or all again: "faults" or "pinned"; or a list rather than a tree: "flat"."""
        self._arrange(**{what: not getattr(self.query_one(LayerTree).arrangement, what)})

    def action_pin(self) -> None:
        """Pin the layer, or let go of it."""
        tree = self.query_one(LayerTree)
        tree.pin()
        if error := self.pins.write(tree.pins):
            self.tell(error, title="Pins are not kept")

    def action_tree(self) -> None:
        """Show or hide the layers."""
        self.toggle_class("-flip")
        if self.query_one("#side").display:
            self.query_one(LayerTree).focus()

    async def action_tab(self, tab: str) -> None:
        """Show another view."""
        if await self.open_page(tab):
            self.select(self._site, self._step)
            if self.focused is None:
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

    def action_preview(self) -> None:
        """Show what the step looks like beside the view, or the view alone."""
        shown = self.query_one(Preview).display
        self.set_class(shown, "-alone")
        self.set_class(not shown, "-beside")

    def action_zoom(self) -> None:
        """Give the view the whole screen, or take it back."""
        self.maximized = None if self.maximized is not None else self.query_one("#stage")

    def action_compare(self) -> None:
        """Choose a trace to compare this one with, from the layer and step shown."""
        from .traces import TraceMenu  # all that compares: the first picture does not wait for it

        if self._player is not None:
            self.action_play()
        step = self._step if self.snapshot.steps else None
        self.app.push_screen(TraceMenu(self._loader.trace, layer=self._layer, step=step), self._compare)

    def _compare(self, screen: CompareScreen | None) -> None:
        if screen is not None:
            if self._look.shade:
                screen.draw_in_shades()
            self.app.push_screen(screen)

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
        """Show the keys that hold now."""
        view, focused = self._view, self.focused
        own = [*page_keys(view), *getattr(self.page, "BINDINGS", ()), *getattr(self.page, "INNER_BINDINGS", ())]
        sections = [(f"In {view.title}", own)] if own else []
        sections += [*by_topic(self.all_keys()), ("In the list of layers", LayerTree.BINDINGS)]
        note = (focused.HELP if focused is not None else None) or self.HELP
        self.app.push_screen(KeyHelp(note, sections))

    def action_back(self) -> None:
        """Leave whatever was entered last: field, filter, zoom, the way the layers are listed."""
        if self.query_one("#goto", Input).display:
            self.close_goto()
        elif self.query_one("#filter", Input).display:
            self._clear_filter()
        elif self.maximized is not None:
            self.maximized = None
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

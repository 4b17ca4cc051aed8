"""The main screen: its widgets, and what its keys do that have no other part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import ContentSwitcher, Input, Static

from ..export.selection import Selection
from ..export.sheet import Taken, Takes
from ..export.text import full_path
from ..look import CHANGES
from ..widgets.explanation import Explanation
from ..widgets.header import TraceHeader
from ..widgets.key_line import KeyLine
from ..widgets.layer_tree import LayerTree
from ..widgets.preview import Preview
from ..widgets.side import Side
from ..widgets.step_strip import StepStrip
from ..widgets.tab_bar import TabBar
from .help import KeyHelp, by_topic
from .keys import KEYS, page_keys
from .listing import ListScreen

if TYPE_CHECKING:
    from ..compare.screen import CompareScreen

__all__ = ["MainScreen"]


class MainScreen(ListScreen):
    """Layers on the left, the view in the middle, what the step looks like beside it, the steps below."""

    BINDINGS: ClassVar[list[BindingType]] = list(KEYS)
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (100, "-wide"), (150, "-broad")]  # noqa: RUF012 - as the base class declares it
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high")]  # noqa: RUF012 - likewise
    AUTO_FOCUS = ""  # coming back from a menu, Textual would choose the first field, also where it is hidden
    HELP = (
        "Left the layers, below the steps. A mark `✗31` says: not finite from step 31; `▲`: a value from 8188 on, an "
        "eighth of what float16 can hold."
    )

    def compose(self) -> ComposeResult:
        """Lay out the widgets."""
        yield TraceHeader(id="header")
        with Horizontal(id="body"):
            with Side(id="side"):
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

    @on(TabBar.Chosen)
    async def _tab_chosen(self, message: TabBar.Chosen) -> None:
        await self.action_tab(message.tab)

    async def action_tab(self, tab: str) -> None:
        """Show another view; where there is no room for both, in place of the layers."""
        if await self.open_page(tab):
            if self.has_class("-narrow"):
                self.remove_class("-flip")
            self.select(self._site, self._step)
            if self.focused is None:
                self.query_one(LayerTree).focus()

    def action_widen(self, by: int) -> None:
        """Give the layers more room, or less."""
        self.query_one(Side).widen(by)

    def on_resize(self) -> None:
        """Keep the width that was given to the layers where it fits."""
        self.query_one(Side).fit()

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

    def action_about(self) -> None:
        """Show what the trace says of itself."""
        from .about import About

        self.app.push_screen(About(self._loader.trace))

    def action_export(self) -> None:
        """Write what is chosen into a file."""
        from .export import ExportMenu  # which draws pictures: the first one here does not wait for it

        self.app.push_screen(ExportMenu(self._selection()))

    def action_copy(self) -> None:
        """Copy a value, a path, a command or code."""
        from .export import CopyMenu

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
            taken=self._taken(),
        )

    def _taken(self) -> Taken:
        page = self.page
        shown = self.query_one("#pages", ContentSwitcher).visible_content is page
        return (page.taken() if shown and isinstance(page, Takes) else None) or Taken()

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

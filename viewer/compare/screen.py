"""The comparison of two traces: holds the selection, hands it to the widgets, and has read what they need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Final

import numpy as np
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import Footer, HelpPanel, Static

from diffusion_xray.tracer.divergence import Comparison
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.pairing import LINKS, Link, Names
from diffusion_xray.tracer.run_facts import facts
from diffusion_xray.tracer.trace import Trace

from ..look import CHANGES, Look
from .canvas import PairCanvas
from .draw import LABELS
from .header import CompareHeader, FactsView, tolerance_text
from .keys import KEYS
from .panes import Pane
from .places import CompareActions, ComparedLayers
from .reading import ReadingScreen
from .state import MODES, SORTS, TOLERANCES, Comparing, Mode, order_of, summed
from .strip import DivergenceStrip
from .table import DivergenceTable

__all__ = ["CompareScreen"]

_FLICKER: Final = 0.5
_WIPE: Final = 0.05
_TELLING: Final = frozenset({"comparison", "revision", "tolerance"})
"""Fields of the state on which what is told of the whole table depends."""


class CompareScreen(ReadingScreen):
    """Divergence by layer above, A, B and their difference below it, the steps at the bottom.

    Can be pushed on any app. Statistics are read before the first picture, tensors after it.

    Args:
        a: The trace that counts.
        b: The other one.
        names: What modules of A are called in B, see `pair_sites`.
        by: How steps are linked, see `link_steps`.
        tolerance: Largest relative L2 distance that passes; None for each layer's own, by its dtypes.
        layer: Module to begin at; by default the first over the tolerance.
        step: Step of A to begin at; likewise.
        shade: Draw with shades of characters instead of colours.

    Raises:
        DxrayError: The traces cannot be compared as asked, or not be read.
    """

    BINDINGS: ClassVar[list[BindingType]] = list(KEYS)
    COMMANDS: ClassVar[Any] = {CompareActions, ComparedLayers}
    AUTO_FOCUS = "DivergenceTable"
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (100, "-wide")]  # noqa: RUF012 - as the base class declares it
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high"), (32, "-tall")]  # noqa: RUF012 - likewise
    HELP = "Layers in execution order; the first one over the tolerance is where the two runs part."
    CSS_PATH = "compare.tcss"

    def __init__(
        self,
        a: Trace,
        b: Trace,
        *,
        names: Names | None = None,
        by: Link = "index",
        tolerance: float | None = None,
        layer: str = "",
        step: int | None = None,
        shade: bool = False,
    ) -> None:
        super().__init__()
        comparison = Comparison(a, b, names, by)
        self._names = names
        self._flicker: Timer | None = None
        self._at = -1
        self._untouched = not layer and step is None
        self._told = ""
        self.state = Comparing(
            comparison,
            facts(a, b),
            order_of(comparison, "execution", tolerance),
            look=Look(shade=shade),
            tolerance=tolerance,
            loading=True,
            total=int(comparison.comparable.any(axis=1).sum()),
        )
        first = comparison.table.first_over(tolerance)
        row, link = (first.row, first.link) if first else (self._first_in_loop(), 0)
        if layer:
            row = next((at for at, pair in enumerate(comparison.table.pairing.pairs) if pair.a.name == layer), row)
        if step is not None:
            link = self._link_of(step)
        self.state = summed(replace(self.state, row=row, link=min(link, max(self.state.steps - 1, 0))))

    def compose(self) -> ComposeResult:
        """Lay out the widgets."""
        yield CompareHeader(id="compare-header")
        with Vertical(id="compare-layers") as layers:
            layers.border_title = "divergence by layer"
            yield DivergenceTable(id="divergences")
        with Horizontal(id="compare-panes"):
            for side in ("A", "B", "difference"):
                yield Pane(side, id=f"pane-{side.lower()}")
        with Vertical(id="compare-facts") as told:
            told.border_title = "the two runs"
            yield FactsView()
        yield DivergenceStrip(id="compare-steps")
        yield Static("dxray needs 60 × 16 characters: make the terminal larger", id="compare-small", markup=False)
        yield Footer(id="compare-footer")

    def on_mount(self) -> None:
        """Draw from the statistics first, then read the rest."""
        self._show()
        self._ask()
        self.compare_all(self.state.comparison)

    def go_to(self, row: int, link: int | None = None) -> None:
        """Show a row of the list, and a linked step."""
        last = max(self.state.steps - 1, 0)
        at = self.state.link if link is None else min(max(link, 0), last)
        self._untouched = False
        self._set(row=row, link=at, loading=True)
        self._ask()

    def set_tolerance(self, tolerance: float | None) -> None:
        """Count by another tolerance."""
        self._at = -1
        self._set(tolerance=tolerance, order=order_of(self.state.comparison, self.state.sort, tolerance))

    def set_mode(self, mode: Mode) -> None:
        """Show the difference in another way."""
        if self._flicker is not None:
            self._flicker.stop()
            self._flicker = None
        if mode == "flicker":
            self._flicker = self.set_interval(_FLICKER, lambda: self._set(flicker=not self.state.flicker))
        self._set(mode=mode, flicker=False)

    def draw_in_shades(self) -> None:
        """Draw with shades of characters from now on."""
        self._set(look=replace(self.state.look, shade=True))

    def set_link(self, by: Link) -> None:
        """Link the steps in another way."""
        self.compare_anew(self.state.comparison.a, self.state.comparison.b, self._names, by)

    @on(DivergenceTable.Chosen)
    def _row_chosen(self, message: DivergenceTable.Chosen) -> None:
        self.go_to(message.row)

    @on(DivergenceStrip.Chosen)
    def _step_chosen(self, message: DivergenceStrip.Chosen) -> None:
        self.go_to(self.state.row, message.link)

    def action_step(self, by: int) -> None:
        """Go some steps on or back."""
        self.go_to(self.state.row, self.state.link + by)

    def action_next(self, by: int) -> None:
        """Go to the next layer and step over the tolerance, a layer once, causes first."""
        found = self.state.table.first_steps(self.state.tolerance)
        if not len(found):
            self.notify("No layer is over the tolerance.", timeout=2)
            return
        here = np.flatnonzero(found[:, 0] == self.state.row)
        if self._at < 0 and not (by < 0 and len(here)):
            at = 0
        else:
            at = (int(here[0]) + by if len(here) else self._at) % len(found)
        self._at = at
        self.go_to(int(found[at, 0]), int(found[at, 1]) if self._is_stepped(int(found[at, 0])) else None)
        self.notify(f"{at + 1} of {len(found)} over the tolerance, causes first", timeout=2)

    def action_mode(self) -> None:
        """Show the difference in the next way."""
        self.set_mode(MODES[(MODES.index(self.state.mode) + 1) % len(MODES)])

    def action_wipe(self, by: int) -> None:
        """Move the edge between A and B."""
        self._set(wipe=min(max(self.state.wipe + by * _WIPE, 0.0), 1.0))

    def action_sort(self) -> None:
        """Sort the layers in the next way."""
        sort = SORTS[(SORTS.index(self.state.sort) + 1) % len(SORTS)]
        self._set(sort=sort, order=order_of(self.state.comparison, sort, self.state.tolerance))

    def action_tolerance(self) -> None:
        """Take the next tolerance."""
        known = TOLERANCES.index(self.state.tolerance) if self.state.tolerance in TOLERANCES else -1
        self.set_tolerance(TOLERANCES[(known + 1) % len(TOLERANCES)])

    def action_link(self) -> None:
        """Link the steps in the next way."""
        self.set_link(LINKS[(LINKS.index(self.state.table.links.by) + 1) % len(LINKS)])

    def action_swap(self) -> None:
        """Take B for A, and A for B."""
        if self._names is not None:
            self.notify("Layers are paired by names given for this direction; open them the other way round.")
            return
        comparison = self.state.comparison
        self.compare_anew(comparison.b, comparison.a, None, comparison.table.links.by)

    def action_look(self, change: str) -> None:
        """Change how things are drawn."""
        batch = self.state.look.batch
        self._set(look=CHANGES[change](self.state.look))
        if self.state.look.batch != batch:
            self._ask()

    def action_facts(self) -> None:
        """Show what the runs have in common, or the pictures again."""
        self.toggle_class("-facts")

    def action_zoom(self) -> None:
        """Give what has the focus the whole screen, or take it back."""
        self.maximized = None if self.maximized is not None else self.focused

    def action_help(self) -> None:
        """Show or hide the keys."""
        if self.query(HelpPanel):
            self.app.action_hide_help_panel()
        else:
            self.app.action_show_help_panel()

    def action_report(self) -> None:
        """Write what has been found beside the working folder's other files."""
        self.write(self.state.comparison, self.state.tolerance)

    def action_leave(self) -> None:
        """Leave what was entered last: help, zoom, facts, and then the comparison."""
        if self.query(HelpPanel):
            self.app.action_hide_help_panel()
        elif self.maximized is not None:
            self.maximized = None
        elif self.has_class("-facts"):
            self.remove_class("-facts")
        elif len(self.app.screen_stack) > 2:
            self.dismiss()
        else:
            self.app.exit()

    @on(ReadingScreen.Reported)
    def _reported(self, message: ReadingScreen.Reported) -> None:
        if message.path is None:
            self.notify(printable(message.error), title="Not written", severity="error", markup=False)
            return
        still = " The comparison is not finished yet." if self.state.running else ""
        self.notify(f"{printable(message.path)}, with .json and .csv.{still}", title="Report written", markup=False)

    @on(ReadingScreen.Progressed)
    def _progressed(self, message: ReadingScreen.Progressed) -> None:
        if message.comparison is not self.state.comparison:
            return
        changes: dict[str, Any] = {"done": message.done, "running": message.running}
        if self.state.sort != "execution":
            changes["order"] = order_of(self.state.comparison, self.state.sort, self.state.tolerance)
        self._set(revision=self.state.revision + 1, **changes)
        first = self.state.first
        if self._untouched and not message.running and first is not None:
            self.go_to(first.row, first.link if first.steps else None)

    @on(ReadingScreen.Read)
    def _arrived(self, message: ReadingScreen.Read) -> None:
        state, found = self.state, message.found
        if message.comparison is not state.comparison or (found.row, found.link) != (state.row, state.link):
            return
        if found.error and found.error != self._told:
            self._told = found.error
            self.notify(printable(found.error), title="Not readable", severity="error", markup=False)
        news = {"revision": state.revision + 1} if message.is_news else {}
        self._set(found=found, loading=False, **news)

    @on(ReadingScreen.Compared)
    def _compared(self, message: ReadingScreen.Compared) -> None:
        comparison = message.comparison
        if comparison is None:
            self.notify(printable(message.error), title="Not comparable", severity="error", markup=False)
            return
        pair, old = self.state.pair, self.state.table.links
        step = old.pairs[self.state.link][0] if old.pairs else 0
        keys = [other.a.key for other in comparison.table.pairing.pairs]
        row = keys.index(pair.a.key) if pair is not None and pair.a.key in keys else 0
        self._at = -1
        self._set(
            comparison=comparison,
            facts=facts(comparison.a, comparison.b),
            order=order_of(comparison, self.state.sort, self.state.tolerance),
            row=row,
            found=None,
            loading=True,
            done=0,
            total=int(comparison.comparable.any(axis=1).sum()),
            running=True,
        )
        self._set(link=self._link_of(step))
        self._ask()
        self.compare_all(comparison)

    def _ask(self) -> None:
        if self.state.pair is None or (self.state.pair.a.stepped and not self.state.steps):
            self._set(found=None, loading=False)
        else:
            self.read_soon(self.state.comparison, self.state.row, self.state.link, self.state.look.batch)

    def _set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        if not changes.keys().isdisjoint(_TELLING):
            self.state = summed(self.state)
        self._show()

    def _show(self) -> None:
        if not self.is_mounted:
            return
        state = self.state
        for canvas in self.query(PairCanvas):
            canvas.state = state
        layers = self.query_one("#compare-layers")
        layers.border_title = f"divergence by layer · {state.sort} order (s)"
        layers.border_subtitle = self._verdict()
        for side, trace in (("a", state.comparison.a), ("b", state.comparison.b)):
            self.query_one(f"#pane-{side}").border_title = f"{side.upper()} {_plain(trace.name)}"
        self.query_one("#pane-difference").border_title = _plain(f"X {state.mode}: {LABELS[state.mode]}")

    def _verdict(self) -> str:
        state = self.state
        told = tolerance_text(state.tolerance)
        if state.equal and not state.running:
            return f"no difference in {state.equal} tensors"
        return f"{state.over or 'none'} of {len(state.table)} over tolerance ({told})"

    def _first_in_loop(self) -> int:
        return next((at for at, pair in enumerate(self.state.table.pairing.pairs) if pair.a.stepped), 0)

    def _is_stepped(self, row: int) -> bool:
        return self.state.table.pairing.pairs[row].a.stepped

    def _link_of(self, step: int) -> int:
        """The link of the step of A that is nearest."""
        pairs = self.state.table.links.pairs
        step = step if step >= 0 else len(self.state.comparison.a) + step
        return min(range(len(pairs)), key=lambda link: abs(pairs[link][0] - step), default=0)


def _plain(text: str) -> str:
    """Text for a border, where "[" would begin markup."""
    return printable(text).replace("[", "\\[")

"""The comparison of two traces: its widgets, and what its keys do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import numpy as np
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import Static

from diffusion_xray.tracer.comparison.pairing import LINKS, Link
from diffusion_xray.tracer.info import printable

from ..look import CHANGES
from ..screens.help import KeyHelp
from ..widgets.key_line import KeyLine
from .header import CompareHeader, FactsView
from .keys import KEYS
from .panes import Pane
from .places import CompareActions, ComparedLayers
from .reading import ReadingScreen
from .stage import CompareStage
from .state import MODES, SORTS, TOLERANCES, Mode, order_of
from .strip import DivergenceStrip
from .table import DivergenceTable

__all__ = ["CompareScreen"]

_FLICKER: Final = 0.5
_WIPE: Final = 0.05


class CompareScreen(CompareStage):
    """Divergence by layer above, A, B and their difference below it, the steps at the bottom.

    Can be pushed on any app. Statistics are read before the first picture, tensors after it.

    Args:
        opening: The two traces, and the first selection.
        shade: Draw with shades of characters instead of colours.
    """

    BINDINGS: ClassVar[list[BindingType]] = list(KEYS)
    COMMANDS: ClassVar[Any] = {CompareActions, ComparedLayers}
    AUTO_FOCUS = "DivergenceTable"
    ALLOW_IN_MAXIMIZED_VIEW = "KeyLine"  # the key that leads back is named there too
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (100, "-wide")]  # noqa: RUF012 - as the base class declares it
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high"), (32, "-tall")]  # noqa: RUF012 - likewise
    HELP = "Layers in execution order; the first one over the tolerance is where the two runs part."
    CSS_PATH = "compare.tcss"

    _flicker: Timer | None = None

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
        yield KeyLine(id="compare-footer")

    def on_mount(self) -> None:
        """Draw from the statistics first, then read the rest."""
        self.show()
        self.ask()
        self.compare_all(self.state.comparison)

    def watch_maximized(self) -> None:
        """Name the key that leads back while there is a way back; Textual takes the zoom back by itself as well."""
        self.refresh_bindings()

    def set_tolerance(self, tolerance: float | None) -> None:
        """Count by another tolerance."""
        self._over = -1
        self.change(tolerance=tolerance, order=order_of(self.state.comparison, self.state.sort, tolerance))

    def set_mode(self, mode: Mode) -> None:
        """Show the difference in another way."""
        if self._flicker is not None:
            self._flicker.stop()
            self._flicker = None
        if mode == "flicker":
            self._flicker = self.set_interval(_FLICKER, lambda: self.change(flicker=not self.state.flicker))
        self.change(mode=mode, flicker=False)

    def set_link(self, by: Link) -> None:
        """Link the steps in another way."""
        self.compare_anew(self.state.comparison.a, self.state.comparison.b, self._names, by)

    def draw_in_shades(self) -> None:
        """Draw with shades of characters from now on."""
        self.change(look=replace(self.state.look, shade=True))

    @on(DivergenceTable.Chosen)
    def _row_chosen(self, message: DivergenceTable.Chosen) -> None:
        self.go_to(message.row)

    @on(DivergenceStrip.Chosen)
    def _step_chosen(self, message: DivergenceStrip.Chosen) -> None:
        self.go_to(self.state.row, message.step)

    @on(ReadingScreen.Reported)
    def _reported(self, message: ReadingScreen.Reported) -> None:
        if message.path is None:
            self.notify(printable(message.error), title="Not written", severity="error", markup=False)
            return
        still = " The comparison is not finished yet." if self.state.running else ""
        self.notify(f"{printable(message.path)}, with .json and .csv.{still}", title="Report written", markup=False)

    def action_step(self, by: int) -> None:
        """Go some steps on or back."""
        self.go_to(self.state.row, self.state.link + by)

    def action_next(self, by: int) -> None:
        """Go to the next layer and step over the tolerance, a layer once, causes first."""
        found = self.state.table.first_steps(self.state.tolerance)
        if not len(found):
            self.notify(f"No layer is over the tolerance{self._unreadable()}.", timeout=2)
            return
        here = np.flatnonzero(found[:, 0] == self.state.row)
        if self._over < 0 and not (by < 0 and len(here)):
            at = 0
        else:
            at = (int(here[0]) + by if len(here) else self._over) % len(found)
        self._over = at
        row = int(found[at, 0])
        stepped = self.state.table.pairing.pairs[row].a.stepped
        self.go_to(row, int(found[at, 1]) if stepped else None)
        self.notify(f"{at + 1} of {len(found)} over the tolerance, causes first{self._unreadable()}", timeout=2)

    def _unreadable(self) -> str:
        """What a message about the whole table may not keep back."""
        count = self.state.unreadable
        return f"; {count} of {len(self.state.table)} cannot be read" if count else ""

    def action_mode(self) -> None:
        """Show the difference in the next way."""
        self.set_mode(MODES[(MODES.index(self.state.mode) + 1) % len(MODES)])

    def action_wipe(self, by: int) -> None:
        """Move the edge between A and B."""
        self.change(wipe=min(max(self.state.wipe + by * _WIPE, 0.0), 1.0))

    def action_sort(self) -> None:
        """Sort the layers in the next way."""
        sort = SORTS[(SORTS.index(self.state.sort) + 1) % len(SORTS)]
        self.change(sort=sort, order=order_of(self.state.comparison, sort, self.state.tolerance))

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
        self.change(look=CHANGES[change](self.state.look))
        if self.state.look.batch != batch:
            self.ask()

    def action_facts(self) -> None:
        """Show what the runs have in common, or the pictures again."""
        self.toggle_class("-facts")
        self.refresh_bindings()

    def action_zoom(self) -> None:
        """Give what has the focus the whole screen, or take it back."""
        self.maximized = None if self.maximized is not None else self.focused

    def action_help(self) -> None:
        """Show the keys."""
        sections: list[tuple[str, Sequence[BindingType]]] = [
            ("In the comparison", KEYS),
            ("In the list of layers", DivergenceTable.BINDINGS),
        ]
        note = (self.focused.HELP if self.focused is not None else None) or self.HELP
        self.app.push_screen(KeyHelp(note, sections))

    def action_report(self) -> None:
        """Write what has been found beside the working folder's other files."""
        self.write(self.state.comparison, self.state.tolerance)

    def action_leave(self) -> None:
        """Leave what was entered last: zoom, facts, and then the comparison where it was begun in the browser."""
        if self.maximized is not None:
            self.action_zoom()
        elif self.has_class("-facts"):
            self.action_facts()
        elif not self._is_alone:
            self.dismiss()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - of the base class
        """Whether a key holds now: `escape` only where it leads back to something, and never out of the program."""
        if action == "leave":
            return self.maximized is not None or self.has_class("-facts") or not self._is_alone
        return True

    @property
    def _is_alone(self) -> bool:
        """Whether there is nothing below it but the empty screen that every application begins with."""
        return self.app.screen_stack[:2][-1] is self

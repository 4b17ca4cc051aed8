"""What a trace says of itself: pipeline, prompts, versions, gaps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual import work
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import get_current_worker

from diffusion_xray.tracer.description import describe_in_lines
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.trace import Trace

from .sheet import Sheet

__all__ = ["About"]


class About(Sheet):
    """The lines of `dxray info`; read in a thread, as the size takes a walk."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,I,q", "dismiss(None)", "Leave", id="about.leave", tooltip="Leave these facts"),
    ]
    HEADING, HOW = "About this trace", "arrows scroll · esc leaves"

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def body(self) -> Iterable[Widget]:
        """Filled once the lines are read."""
        yield Static("reading …", markup=False)

    def on_mount(self) -> None:
        """Read."""
        self._read()

    def on_unmount(self) -> None:
        """Let go of what is still read."""
        self.workers.cancel_node(self)

    @work(thread=True, exclusive=True, group="about")
    def _read(self) -> None:
        try:
            lines = describe_in_lines(self._trace)
        except Exception as error:  # noqa: BLE001 - a damaged store raises whatever its codec likes
            lines = [("not readable", f"{type(error).__name__}: {error}")]
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._fill, lines)

    def _fill(self, lines: Sequence[tuple[str, str]]) -> None:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=12)
        table.add_column(overflow="fold")
        for label, text in lines:
            table.add_row(Text(printable(label), style="bold"), Text(printable(text)))
        self.query_one(Static).update(table)

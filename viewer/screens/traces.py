"""A menu of traces to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from diffusion_xray.tracer.errors import DxrayError
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.trace import Trace, open_trace

from ..compare.opening import ComparisonOpening, open_comparison
from ..compare.screen import CompareScreen
from ..found import FoundTrace, find_beside
from .menu import Choice, Menu, cut

__all__ = ["TraceMenu"]

_NAME: Final = 34
_MOST: Final = 500


class TraceMenu(Menu[CompareScreen]):
    """The traces beside one and below the working folder, to compare it with; any other by its path.

    Its result is the comparison. A trace that cannot be compared is told of, and another can be chosen.

    Args:
        trace: The one to compare.
        layer: Where to begin, as in `open_comparison`.
        step: Likewise.
    """

    HOW = "enter compares · tab to type a path · esc"

    @dataclass
    class Found(Message):
        """There is another trace; None where there are no more."""

        trace: FoundTrace | None

    @dataclass
    class Opened(Message):
        """The two have been laid side by side; `opening` is None where that failed."""

        opening: ComparisonOpening | None
        error: str = ""

    def __init__(self, trace: Trace, *, layer: str = "", step: int | None = None) -> None:
        super().__init__(f"Compare {trace.name} with")
        self._trace = trace
        self._layer, self._step = layer, step
        self._found: list[FoundTrace] = []

    def choices(self) -> Sequence[Choice]:
        """None yet: they come one by one."""
        return ()

    def compose(self) -> ComposeResult:
        """What was found, and below it a field for what was not."""
        with Vertical(id="menu", classes="framed"):
            yield self.listed()
            yield Static("looking for traces …", id="looking", classes="menu--note", markup=False)
            yield Input(placeholder="path or URL of a trace", id="path", compact=True)

    def on_mount(self) -> None:
        """Begin to look."""
        self._look()

    def on_unmount(self) -> None:
        """Let go of what is still looked for."""
        self.workers.cancel_node(self)

    def choose(self, at: int) -> None:
        """Compare with one of the list."""
        self._begin(self._found[at].path)

    @on(Input.Submitted, "#path")
    def _path_given(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip():
            self._begin(event.value.strip())

    def _begin(self, other: Path | str) -> None:
        self.query_one("#menu").border_subtitle = "opening …"
        self._open(other)

    @on(Found)
    def _listed_another(self, message: Found) -> None:
        if message.trace is not None:
            self._found.append(message.trace)
            listed = self.query_one(OptionList).add_option(_line(message.trace))
            if listed.highlighted is None and not message.trace.problem:
                listed.highlighted = len(self._found) - 1
            return
        looking = self.query_one("#looking", Static)
        looking.display = not self._found
        looking.update("No other trace is here. Another run: dxray demo --seed 1 --out other.zarr")
        if not self._found:
            self.query_one("#path").focus()

    @on(Opened)
    def _compare(self, message: Opened) -> None:
        if message.opening is not None:
            self.dismiss(CompareScreen(message.opening))
            return
        self.query_one("#menu").border_subtitle = self.HOW
        self.notify(printable(cut(message.error, 400)), title="Not comparable", severity="error", markup=False)

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        worker = get_current_worker()
        for count, found in enumerate(find_beside(self._trace.path)):
            if worker.is_cancelled or count >= _MOST:
                break
            self.post_message(self.Found(found))
        self.post_message(self.Found(None))

    @work(thread=True, exclusive=True, group="open")
    def _open(self, other: Path | str) -> None:
        """With readers of its own, as the browser goes on reading with that of the trace."""
        worker, path = get_current_worker(), self._trace.path
        try:
            mine = open_trace(path) if isinstance(path, Path) else self._trace
            made = self.Opened(open_comparison(mine, open_trace(other), layer=self._layer, step=self._step))
        except DxrayError as error:
            made = self.Opened(None, str(error))
        except Exception as error:  # noqa: BLE001 - a damaged store raises whatever its codec likes
            made = self.Opened(None, f"{type(error).__name__}: {error}")
        if not worker.is_cancelled:
            self.post_message(made)


def _line(trace: FoundTrace) -> Option:
    """Its name, and what tells it from others."""
    name = printable(str(trace.path))
    name = name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"
    facts = f"{trace.steps:>4} steps  {trace.size:>8}  " if not trace.problem else "  not readable"
    fault = f"✗ {printable(cut(trace.fault, 40))}" if trace.fault else ""
    line = Content.assemble(f" {name:<{_NAME}} ", (facts, "$foreground 60%"), (fault, "$text-error"))
    return Option(line, disabled=bool(trace.problem))

"""Menus that take what is chosen out of the browser: into a file, or into the clipboard of the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from textual import on, work
from textual.app import App, ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, OptionList, Static
from textual.worker import get_current_worker

from diffusion_xray.tracer.errors import DxrayError
from diffusion_xray.tracer.info import printable

from ..export.files import write_new
from ..export.formats import FORMATS, Format
from ..export.selection import Selection
from ..export.text import file_stem, snippet, view_command
from .menu import Choice, Menu, cut

__all__ = ["CopyMenu", "ExportMenu"]


def _where(selection: Selection) -> list[str]:
    """What is chosen, for the frame's title."""
    where = [selection.layer or selection.snapshot.title]
    if selection.site is not None and selection.site.stepped and selection.snapshot.steps:
        where.append(f"step {selection.step}")
    return where


class ExportMenu(Menu[None]):
    """What of the selection to write into a file; a file that is there is never replaced.

    In a web browser the file is downloaded there, and nothing is written where the trace lies.

    Args:
        selection: What is chosen.
        folder: Where files go, until the user types another.
    """

    DEFAULT_CSS = """
    ExportMenu #where {
        height: 1;
        margin: 0 0 1 1;

        & > Static { width: auto; color: $foreground 60%; }
        & > Input, & > Input:focus { width: 1fr; margin: 0 0 0 1; }
    }
    """

    def __init__(self, selection: Selection, *, folder: str = ".") -> None:
        super().__init__("Export", *_where(selection))
        self._selection = selection
        self._folder = folder
        self._stem = file_stem(selection)

    def choices(self) -> Sequence[Choice]:
        """A format each."""
        reasons = [form.why_not(self._selection) for form in FORMATS]
        return [
            Choice(form.key, form.title_of(self._selection), why or form.suffix, possible=not why)
            for form, why in zip(FORMATS, reasons, strict=True)
        ]

    def compose(self) -> ComposeResult:
        """The formats, and below them where the file goes."""
        with Vertical(id="menu", classes="framed"):
            yield self.listed()
            if self.app.is_web:
                yield Static("to the downloads of this web browser", classes="menu--note", markup=False)
            else:
                yield Static(f"as {self._stem}.…", classes="menu--note", markup=False)
                with Horizontal(id="where"):
                    yield Static("in the folder (tab to change it)", markup=False)
                    yield Input(self._folder, id="folder", compact=True)

    @on(Input.Submitted, "#folder")
    def _folder_given(self, event: Input.Submitted) -> None:
        event.stop()
        self.query_one(OptionList).focus()

    def choose(self, at: int) -> None:
        """Write one format, and leave."""
        if not self.app.is_web:
            self._folder = self.query_one("#folder", Input).value.strip() or "."
        form = FORMATS[at]
        if form.make is None:
            self.dismiss(None)  # the picture is of the screen below
            self.app.call_after_refresh(_write_screen, self.app, self._deliver)
        else:
            self.query_one("#menu").border_subtitle = "writing …"
            self._make(form, form.make)

    @work(thread=True, exclusive=True, group="export")
    def _make(self, form: Format, make: Callable[[Selection], bytes]) -> None:
        worker, app = get_current_worker(), self.app
        try:
            data = make(self._selection)
            if worker.is_cancelled:
                return
            note = self._deliver(app, form.suffix, data)
        except Exception as error:  # noqa: BLE001 - a damaged chunk raises whatever its codec likes
            app.call_from_thread(_tell_failure, app, error)
        else:
            app.call_from_thread(_tell, app, note)
        app.call_from_thread(self._leave)

    def _leave(self) -> None:
        if self.is_current:
            self.dismiss(None)

    def _deliver(self, app: App[object], suffix: str, data: bytes) -> str:
        """Hand the bytes over; the result says where they are."""
        name = f"{self._stem}{suffix}"
        if app.is_web:
            app.deliver_binary(io.BytesIO(data), save_filename=name)
            return f"downloading {name}"
        path = write_new(self._folder, self._stem, suffix, data)
        return f"written to {path}" + ("" if path.name == name else f" – {name} was there already and is untouched")


class CopyMenu(Menu[None]):
    """What of the selection to copy. The terminal is asked to; whether it did, it does not tell."""

    def __init__(self, selection: Selection) -> None:
        super().__init__("Copy", *_where(selection))
        self._selection = selection
        self._texts = (
            ("v", "Value" if selection.value else f"Value of {selection.look.statistic}", selection.number()),
            ("p", "Path of the layer", printable(selection.layer)),
            ("t", "Path of the trace", printable(selection.trace)),
            ("c", "Command that opens it", view_command(selection)),
            ("y", "Python that reads it", snippet(selection)),
        )

    def choices(self) -> Sequence[Choice]:
        """A text each, or its last line."""
        return [
            Choice(key, title, text.strip().rpartition("\n")[2] or "nothing there", possible=bool(text))
            for key, title, text in self._texts
        ]

    def compose(self) -> ComposeResult:
        """The texts, and what to do when nothing arrives."""
        with Vertical(id="menu", classes="framed"):
            yield self.listed()
            note = "Nothing in the clipboard afterwards? The terminal must allow OSC 52; tmux: set -g set-clipboard on"
            yield Static(note, classes="menu--note", markup=False)

    def choose(self, at: int) -> None:
        """Copy one text, and leave."""
        _, title, text = self._texts[at]
        self.app.copy_to_clipboard(text)
        _tell(self.app, f"copied: {title.lower()}")
        self.dismiss(None)


def _write_screen(app: App[object], deliver: Callable[[App[object], str, bytes], str]) -> None:
    try:
        _tell(app, deliver(app, ".svg", app.export_screenshot().encode()))
    except DxrayError as error:
        _tell_failure(app, error)


def _tell(app: App[object], text: str) -> None:
    app.notify(printable(text), markup=False, timeout=4)


def _tell_failure(app: App[object], error: Exception) -> None:
    text = str(error) if isinstance(error, DxrayError) else f"{type(error).__name__}: {error}"
    app.notify(printable(cut(text, 400)), title="Not exported", severity="error", markup=False)

"""Menus that take what is chosen out of the browser: into a file, or into the clipboard of the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from diffusion_xray.tracer.errors import DxrayError
from diffusion_xray.tracer.info import printable

from ..export.files import write_new
from ..export.formats import FORMATS, Format
from ..export.selection import Selection
from ..export.text import file_stem, snippet, view_command

__all__ = ["CopyMenu", "ExportMenu"]


@dataclass(frozen=True, slots=True)
class _Choice:
    key: str
    title: str
    note: str
    """What comes of it, or why nothing does."""
    possible: bool = True


class _Menu(ModalScreen[None]):
    """A short list, each entry with its key; nothing in it is taken as markup."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Leave", id="menu.leave", tooltip="Leave the menu"),
    ]
    AUTO_FOCUS = "OptionList"
    DEFAULT_CSS = """
    _Menu {
        align: center middle;
        background: $background 60%;

        & > #menu {
            width: 76;
            max-width: 100%;
            height: auto;
            max-height: 100%;
            border: round $accent;
            border-title-color: $text-accent;
            border-subtitle-color: $foreground 60%;
            background: $surface;
            padding: 1 1 0 1;
        }

        & OptionList, & OptionList:focus {
            height: auto;
            max-height: 12;
            border: none;
            padding: 0;
            background: $surface;
            background-tint: $foreground 0%;
            text-wrap: nowrap;
            text-overflow: ellipsis;
        }

        & .menu--note {
            height: auto;
            color: $foreground 60%;
            padding: 1 1 0 1;
        }

        & Input, & Input:focus {
            height: 1;
            border: none;
            margin: 0 0 1 1;
            padding: 0 1;
            background: $boost;
        }
    }
    """

    def __init__(self, selection: Selection) -> None:
        super().__init__()
        self._selection = selection

    def choices(self) -> Sequence[_Choice]:
        """The entries from the top."""
        raise NotImplementedError

    def choose(self, at: int) -> None:
        """Do what an entry says."""
        raise NotImplementedError

    def listed(self, title: str) -> OptionList:
        """The list, and the frame's title around it."""
        selection = self._selection
        where = [title, selection.layer or selection.snapshot.title]
        if selection.site is not None and selection.site.stepped and selection.snapshot.steps:
            where.append(f"step {selection.step}")
        self._title = Content(printable(_cut(" · ".join(where), 68)))
        choices = self.choices()
        return OptionList(*(Option(_line(choice), disabled=not choice.possible) for choice in choices))

    def on_mount(self) -> None:
        """Name the frame."""
        frame = self.query_one("#menu")
        frame.border_title = self._title
        frame.border_subtitle = "enter or its letter · esc"

    def on_key(self, event: Key) -> None:
        """Take a letter for the entry that has it, unless it is typed into a field."""
        if isinstance(self.focused, Input):
            return
        for at, choice in enumerate(self.choices()):
            if event.character == choice.key and choice.possible:
                event.stop()
                self.choose(at)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.choose(event.option_index)


class ExportMenu(_Menu):
    """What of the selection to write into a file; a file that is there is never replaced.

    In a web browser the file is downloaded there, and nothing is written where the trace lies.

    Args:
        selection: What is chosen.
        folder: Where files go, until the user types another.
    """

    def __init__(self, selection: Selection, *, folder: str = ".") -> None:
        super().__init__(selection)
        self._folder = folder
        self._stem = file_stem(selection)

    def choices(self) -> Sequence[_Choice]:
        """A format each."""
        reasons = [form.why_not(self._selection) for form in FORMATS]
        return [
            _Choice(form.key, form.title, why or form.suffix, possible=not why)
            for form, why in zip(FORMATS, reasons, strict=True)
        ]

    def compose(self) -> ComposeResult:
        """The formats, and below them where the file goes."""
        with Vertical(id="menu"):
            yield self.listed("Export")
            if self.app.is_web:
                yield Static("to the downloads of this web browser", classes="menu--note", markup=False)
            else:
                yield Static(f"as {self._stem}.… in the folder (tab to change it)", classes="menu--note", markup=False)
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


class CopyMenu(_Menu):
    """What of the selection to copy. The terminal is asked to; whether it did, it does not tell."""

    def __init__(self, selection: Selection) -> None:
        super().__init__(selection)
        self._texts = (
            ("v", "Value" if selection.value else f"Value of {selection.look.statistic}", selection.number()),
            ("p", "Path of the layer", printable(selection.layer)),
            ("t", "Path of the trace", printable(selection.trace)),
            ("c", "Command that opens it", view_command(selection)),
            ("y", "Python that reads it", snippet(selection)),
        )

    def choices(self) -> Sequence[_Choice]:
        """A text each, or its last line."""
        return [
            _Choice(key, title, text.strip().rpartition("\n")[2] or "nothing there", possible=bool(text))
            for key, title, text in self._texts
        ]

    def compose(self) -> ComposeResult:
        """The texts, and what to do when nothing arrives."""
        with Vertical(id="menu"):
            yield self.listed("Copy")
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
    app.notify(printable(_cut(text, 400)), title="Not exported", severity="error", markup=False)


def _line(choice: _Choice) -> Content:
    note = printable(_cut(choice.note, 200))
    tone = "$text-accent" if choice.possible else ""
    return Content.assemble((f" {choice.key}  ", tone), f"{choice.title:<27}", (note, "$foreground 60%"))


def _cut(text: str, width: int) -> str:
    """The beginning of a text: a name in a trace may be as long as it likes."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) >= width:
        text = text[: -max((len(text) - width) // 2, 1)]
    return f"{text}…"

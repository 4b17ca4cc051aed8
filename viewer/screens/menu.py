"""A short list to choose from, above the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from rich.cells import cell_len
from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Key
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from diffusion_xray.tracer.info import printable

from .framed import Framed

__all__ = ["Choice", "Menu", "cut"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Choice:
    """An entry."""

    key: str
    """The letter that chooses it; "" for none."""
    title: str
    note: str
    """What comes of it, or why nothing does."""
    possible: bool = True


class Menu(Framed[Result], Generic[Result]):
    """Entries, some with a key each; nothing in them is taken as markup.

    A subclass composes `listed` into a container of the id "menu", framed.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Leave", id="menu.leave", tooltip="Leave the menu"),
    ]
    AUTO_FOCUS = "OptionList"
    HOW = "enter or its letter · esc"
    """Below the list."""
    DEFAULT_CSS = """
    Menu {
        & > #menu {
            width: 76;
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

    def __init__(self, *where: str) -> None:
        super().__init__()
        self._title = Content(printable(cut(" · ".join(where), 68)))

    def choices(self) -> Sequence[Choice]:
        """The entries from the top."""
        raise NotImplementedError

    def choose(self, at: int) -> None:
        """Do what an entry says."""
        raise NotImplementedError

    def listed(self) -> OptionList:
        """The list."""
        return OptionList(*(option(choice) for choice in self.choices()))

    def on_mount(self) -> None:
        """Name the frame."""
        frame = self.query_one("#menu")
        frame.border_title = self._title
        frame.border_subtitle = self.HOW

    def on_key(self, event: Key) -> None:
        """Take a letter for the entry that has it, unless it is typed into a field."""
        if isinstance(self.focused, Input) or not event.character:
            return
        for at, choice in enumerate(self.choices()):
            if event.character == choice.key and choice.possible:
                event.stop()
                self.choose(at)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.choose(event.option_index)


def option(choice: Choice) -> Option:
    """An entry as a line of the list."""
    note = printable(cut(choice.note, 200))
    tone = "$text-accent" if choice.possible else ""
    line = Content.assemble((f" {choice.key}  ", tone), f"{printable(choice.title):<27}", (note, "$foreground 60%"))
    return Option(line, disabled=not choice.possible)


def cut(text: str, width: int) -> str:
    """The beginning of a text: a name in a trace may be as long as it likes."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) >= width:
        text = text[: -max((len(text) - width) // 2, 1)]
    return f"{text}…"

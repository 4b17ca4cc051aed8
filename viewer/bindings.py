"""Keys that the footer leaves out, as most are: there is room for six."""

from __future__ import annotations

from textual.binding import Binding

__all__ = ["hidden"]


def hidden(key: str, action: str, title: str, *, id: str, tooltip: str = "", display: str = "") -> Binding:  # noqa: A002
    """A key for the help and the palette alone.

    Args:
        key: By Textual's name; several, with commas.
        action: What it does.
        title: In a few words, for the palette.
        id: By which a keymap moves it.
        tooltip: One sentence for the help; the title where that says it all.
        display: The sign on the keyboard, where Textual's name is another.
    """
    return Binding(key, action, title, show=False, id=id, tooltip=tooltip or title, key_display=display or None)

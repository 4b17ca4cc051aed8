"""What a page in a web browser may say to the browser in the terminal; anything else ends the page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["MOST_COLUMNS", "MOST_ROWS", "Message", "page_size", "read_message"]

MOST_COLUMNS: Final = 500
MOST_ROWS: Final = 200
"""Of a page: a screen of four times the usual size. What is drawn takes memory by the cell."""
_DEFAULT: Final = (80, 24)
_LONGEST_NUMBER: Final = 9
_LONGEST_PING: Final = 40
_KINDS: Final = frozenset({"stdin", "resize", "ping", "blur", "focus"})


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a page."""

    kind: str
    """ "stdin", "resize", "ping", "blur" or "focus"."""
    keys: bytes = b""
    """What was typed."""
    size: tuple[int, int] = _DEFAULT
    """Columns and rows, within bounds."""
    sent: str = ""
    """What a ping had with it, the time as a rule, to be sent back."""


def page_size(columns: object, rows: object) -> tuple[int, int]:
    """Columns and rows of a page, each within bounds; the default for what is no number."""
    wanted = zip((columns, rows), _DEFAULT, (MOST_COLUMNS, MOST_ROWS), strict=True)
    width, height = (min(max(_whole(given, default), 1), most) for given, default, most in wanted)
    return width, height


def read_message(text: str) -> Message | None:
    """A message as textual-serve's page sends it: a list of its kind and its data; None for anything else."""
    try:
        envelope = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(envelope, list) or not envelope or envelope[0] not in _KINDS:
        return None
    kind, data = envelope[0], envelope[1] if len(envelope) > 1 else None
    if kind == "stdin":
        return Message(kind, keys=data.encode("utf-8", "replace")) if isinstance(data, str) else None
    if kind == "resize":
        return Message(kind, size=page_size(data.get("width"), data.get("height"))) if isinstance(data, dict) else None
    if kind == "ping":
        return Message(kind, sent=data) if isinstance(data, str) and len(data) <= _LONGEST_PING else None
    return Message(kind)


def _whole(value: Any, default: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value[:_LONGEST_NUMBER])
    return value if type(value) is int else default

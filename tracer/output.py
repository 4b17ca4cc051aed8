"""The standard output and its limits: an encoding without our signs, a reader that has left, a disk that is full."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import Final

__all__ = ["encode_anything", "forget_output"]

_PLAIN: Final = str.maketrans(
    dict(zip("–—−‘’“”·", "---''\"\".", strict=True))
    | dict(zip("▁▂▃▄▅▆▇█", "._-=+*%#", strict=True))  # bars of a sparkline, rising
    | dict(zip("▀▄▌▐░▒▓", '"_[].:%', strict=True))
    | {"…": "...", "≥": ">=", "≤": "<=", "≠": "!=", "∞": "inf", "×": "x", "±": "+-", "→": "->", "←": "<-", "↔": "<->"}
    | {
        "‖": "||",
        "√": "sqrt",
        "σ": "sigma",
        "μ": "mu",
        "Δ": "d",
        "✗": "x",
        "✓": "ok",
        "²": "^2",
        "½": "1/2",
        "↑": "up",
        "↓": "down",
        "⏎": "enter",
    }
)


def encode_anything() -> None:
    """Let text go out in whatever encoding the terminal has: what that lacks is written in signs that all have."""
    codecs.register_error("dxray", _spelt_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="dxray")


def forget_output() -> None:
    """Send what is still to be written nowhere, so that the interpreter does not fail on it as it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _spelt_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end

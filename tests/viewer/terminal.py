"""The browser in a real pseudo-terminal: what it sends, and what a terminal makes of that."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import pexpect
import pyte
from pyte.screens import Char

__all__ = ["Terminal", "strangers"]

_KEPT = ("HOME", "LANG", "PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")
_SEQUENCE = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    rb"|\x1b[PX^_\]][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # strings: DCS, SOS, PM, APC, OSC
    rb"|\x1b[ -/]*[0-~]?"
    rb"|[\x00-\x1f\x7f]"
)
_OWN = re.compile(
    rb"\x1b\[[0-9;]*m"  # colours
    rb"|\x1b\[[0-9;]*H"  # where to write
    rb"|\x1b\[\?(?:1049|25|1000|1002|1003|1004|1006|1015|1016|2004|2026|2031|2048|7)(?:h|l|\$p)"  # modes
    rb"|\x1b\[[<>=?][0-9;]*[ucq]"  # keyboard protocol
    rb"|\x1b\[[0-9]*[ABCDJKtc]|\x1b\[6n"
    rb"|\x1b\]22;[a-z-]+\x07"  # shape of the mouse pointer
    rb"|[\r\n]"
)


def strangers(sent: bytes) -> list[bytes]:
    """Control characters and sequences that are none of those a Textual application draws with."""
    text = sent.decode("utf-8", errors="surrogateescape")
    c1 = [sign.encode("utf-8", errors="surrogateescape") for sign in text if "\x80" <= sign <= "\x9f"]
    hidden = [sign.encode() for sign in text if sign in "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2069"]
    found = [match[0] for match in _SEQUENCE.finditer(sent)]
    return [*(sequence for sequence in found if not _OWN.fullmatch(sequence)), *c1, *hidden]


class Terminal:
    """A command in a terminal of its own.

    Args:
        arguments: Of ``dxray``.
        size: Columns and rows.
        shell: What a shell runs, with ``"$@"`` for the command.
        variables: Of the environment, in addition.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        size: tuple[int, int] = (120, 40),
        shell: str = '"$@"',
        **variables: str,
    ) -> None:
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"TERM": "xterm-256color", "TEXTUAL_ANIMATIONS": "none", "LC_ALL": "C.UTF-8", **variables}
        command = [sys.executable, "-m", "diffusion_xray.tracer.cli", *arguments]
        self.process = pexpect.spawn(
            "/bin/sh",
            ["-c", shell, "sh", *command],
            cwd=str(folder),
            env=environment,
            dimensions=(size[1], size[0]),
            timeout=60,
        )
        self.sent = b""
        """Everything that reached the terminal."""
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close(force=True)

    @property
    def lines(self) -> list[str]:
        """The text on the screen."""
        return list(self._screen.display)

    @property
    def text(self) -> str:
        """The same in one piece."""
        return "\n".join(self.lines)

    def cell(self, row: int, column: int) -> Char:
        """A character with its colours: names, or six digits."""
        return self._screen.buffer[row][column]

    def cells(self, sign: str) -> list[Char]:
        """All cells that show a character."""
        rows, columns = self._screen.lines, self._screen.columns
        return [
            cell for row in range(rows) for column in range(columns) if (cell := self.cell(row, column)).data == sign
        ]

    def press(self, keys: str) -> None:
        """Type."""
        self.process.send(keys)

    def resize(self, columns: int, rows: int) -> None:
        """Make the window another size."""
        self._screen.resize(rows, columns)
        self.process.setwinsize(rows, columns)

    def until(self, wanted: str | Callable[[], bool], *, seconds: float = 60) -> None:
        """Read on until a text is on the screen, or something holds."""
        end = time.monotonic() + seconds
        while not (wanted in self.text if isinstance(wanted, str) else wanted()):
            if time.monotonic() > end or not self._read(0.2):
                raise AssertionError(f"{wanted!r} did not come; the screen shows\n{self.text}")

    def settle(self) -> None:
        """Read until nothing comes for a moment."""
        before = -1
        while before != len(self.sent):
            before = len(self.sent)
            self._read(0.5)

    def leave(self, key: str = "q") -> int:
        """Press a key that ends the command, and wait for its exit code."""
        self.press(key)
        while self._read(60):
            pass
        self.process.close()
        return int(self.process.exitstatus if self.process.exitstatus is not None else -1)

    def _read(self, seconds: float) -> bool:
        """Whether the command is still there."""
        try:
            data = self.process.read_nonblocking(65536, timeout=seconds)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.sent += data
        self._stream.feed(data)
        return True

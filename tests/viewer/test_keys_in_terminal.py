"""The browser in a real pseudo-terminal: what a user sees and types."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect")
pyte = pytest.importorskip("pyte")

COLUMNS, ROWS = 120, 40


class Terminal:
    """`dxray view` on a trace, and the screen it draws."""

    def __init__(self, trace: Path, *arguments: str) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        command = ["-m", "diffusion_xray.tracer.cli", "view", str(trace), *arguments]
        environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "TEXTUAL_ANIMATIONS": "none"}
        self.child = pexpect.spawn(sys.executable, command, dimensions=(ROWS, COLUMNS), env=environment, timeout=60)

    def until(self, holds: Callable[[str], bool]) -> str:
        """Wait until the screen's text holds something."""
        end = time.monotonic() + 60
        while not holds(text := "\n".join(self.screen.display)):
            if time.monotonic() > end:
                pytest.fail(text)
            try:
                self._stream.feed(self.child.read_nonblocking(65536, timeout=0.05))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                pytest.fail(text)
        return text


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Open the browser; whatever happens it is closed."""
    opened = []

    def make(*arguments: object) -> Terminal:
        opened.append(Terminal(*arguments))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for each in opened:
        each.child.close(force=True)


def test_from_open_to_quit(terminal: Callable[..., Terminal], traces: dict[str, Path]) -> None:
    """The fault is there before any key; keys walk, show a picture in colours, exact numbers, and leave."""
    shown = terminal(traces["faulty"])
    text = shown.until(lambda text: "first ✗ step 4 unet.down_blocks.1" in text)
    assert "✗ 12 non-finite" in text and "step 4" in text
    shown.child.send("[")
    shown.until(lambda text: "step 3 t=550" in text)
    shown.child.send("4")

    def colours() -> set[str]:
        return {shown.screen.buffer[row][column].fg for row in range(6, 30) for column in range(45, 115)}

    shown.until(lambda text: "feature map" in text and "▀▀▀▀▀▀" in text and len(colours()) > 6)
    shown.child.send("6")
    shown.until(lambda text: "batch 0 channel 0 height 0 width 0" in text)
    shown.child.send(":")
    shown.until(lambda text: "words of a layer's name" in text)
    shown.child.send("mid step 1\r")
    shown.until(lambda text: "unet.mid_block" in text and "step 1 t=850" in text)
    shown.child.send("q")
    shown.child.expect(pexpect.EOF)
    shown.child.wait()
    assert shown.child.exitstatus == 0


def test_opens_where_told(terminal: Callable[..., Terminal], traces: dict[str, Path]) -> None:
    """`--layer`, `--step` and `--tab` choose what is seen first."""
    shown = terminal(traces["normal"], "--layer", "unet.*.conv", "--step", "2", "--tab", "values")
    shown.until(lambda text: "unet.mid_block.conv" in text and "step 2 t=700" in text and "height 0 width 0" in text)


def test_a_browser_whose_terminal_is_gone_ends(traces: dict[str, Path]) -> None:
    """Where no signal tells it, as under `nohup`, it notices by itself instead of reading for ever."""
    command = ["-m", "diffusion_xray.tracer.cli", "view", str(traces["normal"])]
    environment = os.environ | {"TERM": "xterm-256color"}
    child = pexpect.spawn(
        sys.executable, command, dimensions=(ROWS, COLUMNS), env=environment, timeout=60, ignore_sighup=True
    )
    child.expect("unet")
    os.close(child.child_fd)
    end = time.monotonic() + 60
    while os.waitpid(child.pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(child.pid, signal.SIGKILL)
            pytest.fail("the browser is still there")
        time.sleep(0.1)

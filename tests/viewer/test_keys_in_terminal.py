"""The browser in a real pseudo-terminal: what a user sees and types."""

import os
import signal
import sys
import time
from pathlib import Path

import pexpect
import pytest

from .terminal import Terminal


def test_from_open_to_quit(traces: dict[str, Path]) -> None:
    """The fault is there before any key; keys walk, show a picture in colours, exact numbers, and leave."""
    path = traces["faulty"]
    with Terminal(["view", path.name], folder=path.parent, COLORTERM="truecolor") as shown:
        shown.until("first ✗ step 4 unet.down_blocks.1")
        assert "✗ 12 non-finite" in shown.text and "step 4" in shown.text
        shown.press("[")
        shown.until("step 3 t=550")
        shown.press("4")

        def colours() -> set[str]:
            return {shown.cell(row, column).fg for row in range(6, 30) for column in range(45, 115)}

        shown.until(lambda: "feature map" in shown.text and "▀▀▀▀▀▀" in shown.text and len(colours()) > 6)
        shown.press("6")
        shown.until("batch 0 channel 0 height 0 width 0")
        shown.press(":mid step 1\r")
        shown.until("step 1 t=850")
        assert "unet.mid_block" in shown.text
        assert shown.leave() == 0


def test_opens_where_told(traces: dict[str, Path]) -> None:
    """`--layer`, `--step` and `--tab` choose what is seen first."""
    path = traces["normal"]
    where = ["--layer", "unet.*.conv", "--step", "2", "--tab", "values"]
    with Terminal(["view", path.name, *where], folder=path.parent) as shown:
        shown.until("height 0 width 0")
        assert "unet.mid_block.conv" in shown.text and "step 2 t=700" in shown.text


def test_a_browser_whose_terminal_is_gone_ends(traces: dict[str, Path]) -> None:
    """Where no signal tells it, as under `nohup`, it notices by itself instead of reading for ever."""
    command = ["-m", "diffusion_xray.tracer.cli", "view", str(traces["normal"])]
    environment = os.environ | {"TERM": "xterm-256color"}
    child = pexpect.spawn(
        sys.executable, command, dimensions=(40, 120), env=environment, timeout=60, ignore_sighup=True
    )
    child.expect("unet")
    os.close(child.child_fd)
    end = time.monotonic() + 60
    while os.waitpid(child.pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(child.pid, signal.SIGKILL)
            pytest.fail("the browser is still there")
        time.sleep(0.1)

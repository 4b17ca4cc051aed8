#!/usr/bin/env python
"""How fast the browser is, through a real pseudo-terminal: first paint, and from a key to what it paints.

python benchmarks/viewer.py                       # on a trace that it records
python benchmarks/viewer.py TRACE --layer LAYER   # on one of yours

First paint is compared with an empty Textual application, so that what is left is ours. A key's time ends when the
terminal shows what belongs to the new step. Without a TRACE one is recorded, of as many modules and steps as given.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pexpect
import pyte
from harness import markdown, write_page

COLUMNS, ROWS = 120, 40
EMPTY = """
from textual.app import App
from textual.widgets import Static
class Empty(App):
    def compose(self):
        yield Static("READY")
Empty().run()
"""
IMPORTS = "import diffusion_xray.viewer.app, diffusion_xray.viewer.loader, diffusion_xray.tracer.trace"


class Terminal:
    """A program in a pseudo-terminal, and what its screen shows."""

    def __init__(self, command: list[str]) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "TEXTUAL_ANIMATIONS": "none"}
        self.started = time.perf_counter()
        self._child = pexpect.spawn(command[0], command[1:], dimensions=(ROWS, COLUMNS), env=environment, timeout=60)

    def until(self, holds: Callable[[pyte.Screen], bool], seconds: float = 30) -> float:
        """Seconds since now until the screen shows something."""
        start = time.perf_counter()
        while not holds(self.screen):
            if time.perf_counter() - start > seconds:
                raise TimeoutError("\n".join(self.screen.display))
            try:
                self._stream.feed(self._child.read_nonblocking(65536, timeout=0.01))
            except pexpect.TIMEOUT:
                continue
        return time.perf_counter() - start

    def processor(self) -> float:
        """Seconds of processor time that the program took so far; unlike the clock they do not mind a busy machine."""
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rest(self, seconds: float) -> None:
        """Take in what comes for a while."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            try:
                self._stream.feed(self._child.read_nonblocking(65536, timeout=0.01))
            except pexpect.TIMEOUT:
                continue

    def press(self, keys: str) -> None:
        """Type."""
        self._child.send(keys)

    def close(self) -> None:
        """End the program."""
        self._child.close(force=True)


def text(screen: pyte.Screen) -> str:
    """All characters."""
    return "\n".join(screen.display)


def region(screen: pyte.Screen) -> tuple[Any, ...]:
    """Characters and colours of the middle, where the view is."""
    return tuple(
        (cell.data, cell.fg, cell.bg)
        for row in range(5, ROWS - 6)
        for column in range(40, COLUMNS - 1)
        for cell in [screen.buffer[row][column]]
    )


def first_paint(command: list[str], sign: str, runs: int) -> tuple[float, float]:
    """Seconds from the start of a program until a sign is on the screen, by the clock and of the processor."""
    found = []
    for _ in range(runs):
        terminal = Terminal(command)
        terminal.until(lambda screen: sign in text(screen))
        found.append((time.perf_counter() - terminal.started, terminal.processor()))
        terminal.close()
    seconds, processor = np.median(found, axis=0)
    return float(seconds), float(processor)


def key_to_paint(command: list[str], keys: int, *, picture: bool) -> tuple[list[float], float]:
    """Seconds from a step key to the statistics, or the picture, of that step; and of the processor, for each key."""
    terminal = Terminal(command)
    terminal.until(lambda screen: "step 0 " in text(screen))
    terminal.rest(1.5)
    found, before_all = [], terminal.processor()
    for number in range(keys):
        step = int(re.findall(r"step (\d+) ", text(terminal.screen))[0])
        on = number % 40 < 20
        wanted, before = f"step {step + (1 if on else -1)} ", region(terminal.screen)
        terminal.press("]" if on else "[")
        found.append(
            terminal.until(
                lambda screen, wanted=wanted, before=before: (  # type: ignore[misc]
                    wanted in text(screen) and (region(screen) != before)
                )
            )
        )
        terminal.rest(0.15 if picture else 0.05)
    each = (terminal.processor() - before_all) / keys
    terminal.close()
    return found, each


def import_profile() -> list[tuple[str, float]]:
    """The modules that take longest to import by themselves, with their seconds."""
    command = [sys.executable, "-X", "importtime", "-c", IMPORTS]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stderr  # noqa: S603 - our own words
    rows = re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", report)
    return sorted(((name, int(own) / 1e6) for own, name in rows), key=lambda row: -row[1])[:12]


def record(path: Path, modules: int, steps: int) -> None:
    """A trace of many small modules."""
    import torch
    from torch import nn

    from diffusion_xray.tracer import Tracer

    torch.manual_seed(0)
    layers = [layer for _ in range(modules // 4) for layer in (nn.Conv2d(4, 4, 1), nn.SiLU(), nn.GroupNorm(2, 4))]
    blocks = [nn.Sequential(*layers[start : start + 3]) for start in range(0, len(layers), 3)]
    denoiser = nn.Sequential(*blocks).eval()
    x = torch.randn(2, 4, 64, 64)
    with torch.no_grad(), Tracer({"unet": denoiser}, path) as tracer:
        for step in range(steps):
            tracer.step(step, timestep=1000.0 - step)
            denoiser(x + 0.1 * step * torch.randn_like(x))


def render(options: argparse.Namespace, found: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    rows = [
        ["first paint, an empty Textual application", seconds(found["empty_s"]), seconds(found["empty_cpu_s"]), ""],
        ["first paint, the browser", seconds(found["paint_s"]), seconds(found["paint_cpu_s"]), ""],
        [
            "the browser's own share",
            seconds(found["paint_s"] - found["empty_s"]),
            seconds(found["paint_cpu_s"] - found["empty_cpu_s"]),
            "500 ms",
        ],
    ]
    for name, target in (("statistics", "50 ms"), ("picture", "200 ms")):
        times = found[f"{name}_s"]
        rows += [
            [f"key to {name}, median", seconds(np.median(times)), seconds(found[f"{name}_cpu_s"]), ""],
            [f"key to {name}, 95th percentile", seconds(np.percentile(times, 95)), "", target],
        ]
    what = options.trace or f"{options.modules} modules, {options.steps} steps"
    first = f"{what}; {COLUMNS}×{ROWS} characters, {options.keys} keys; {os.cpu_count()} cores, textual "
    imports = ", ".join(f"`{name}` {seconds(own)}" for name, own in found["imports_s"].items())
    table = markdown(["", "wall", "CPU", "target"], rows)
    return f"{first}{version('textual')}.\n\n{table}\n\nImports, by their own time: {imports}."


def seconds(value: float) -> str:
    """Seconds as milliseconds."""
    return f"{1000 * value:.0f} ms"


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", help="a trace to look at; without one, one is recorded")
    parser.add_argument("--layer", default="", help="layer to look at; one with stored tensors")
    parser.add_argument("--modules", type=int, default=1000, metavar="N", help="of the trace recorded (%(default)s)")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="of the trace recorded (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="starts of each program (%(default)s)")
    parser.add_argument("--keys", type=int, default=60, metavar="N", help="keys that are timed (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure there, too")
    parser.add_argument("--print-only", action="store_true", help="leave the table in README.md as it is")
    options = parser.parse_args()
    found: dict[str, Any] = {"imports_s": dict(import_profile())}
    with tempfile.TemporaryDirectory() as folder:
        trace, layer = options.trace, options.layer
        if trace is None:
            trace, layer = f"{folder}/many.zarr", "unet.3"
            record(Path(trace), options.modules, options.steps)
        view = [sys.executable, "-m", "diffusion_xray.tracer.cli", "view", trace, "--step", "0"]
        view += ["--layer", layer] if layer else []
        empty = [sys.executable, "-c", EMPTY]
        found["empty_s"], found["empty_cpu_s"] = first_paint(empty, "READY", options.runs)
        found["paint_s"], found["paint_cpu_s"] = first_paint(view, "step 0 ", options.runs)
        for name, tab in (("statistics", "stats"), ("picture", "image")):
            times = key_to_paint([*view, "--tab", tab], options.keys, picture=name == "picture")
            found[f"{name}_s"], found[f"{name}_cpu_s"] = times
    table = render(options, found)
    print(table)
    if not options.print_only:
        write_page(__file__, table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

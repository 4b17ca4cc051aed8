"""What a new user does with the demo trace, in a real terminal, with keys alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.comparison.divergence import Comparison
from diffusion_xray.viewer.compare.state import label_of
from diffusion_xray.viewer.loader import Loader
from diffusion_xray.viewer.order import ranked

from ..attending import CROSS, SELF
from .terminal import Terminal

RIGHT = "\x1b[C"
STEP = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the demo, which differ in their seeds."""
    path = tmp_path_factory.mktemp("demo")
    for seed in (0, 1):
        out = str(path / f"seed{seed}.zarr")
        assert main(["demo", "--no-view", "--steps", str(STEP + 1), "--seed", str(seed), "--out", out]) == 0
    return path


@pytest.fixture
def browser(folder: Path) -> Iterator[Terminal]:
    """The browser, as `dxray view seed0.zarr` opens it."""
    with Terminal(["view", "seed0.zarr"], folder=folder, COLORTERM="truecolor") as terminal:
        terminal.until(f"{STEP + 1} steps")
        terminal.until("? Help")
        yield terminal


def test_letters_of_one_write(browser: Terminal) -> None:
    """Of "/mid", sent in one write, every letter is in the field, and the layers are those that hold it."""
    browser.press("/mid")
    browser.until(lambda: "unet.mid_block " in browser.lines[2])
    browser.settle()
    assert browser.lines[2][1:].lstrip("│ ").startswith("mid")
    assert "Layers" in browser.lines[1], "m has zoomed the view"


def test_from_the_first_screen_to_the_word_map(browser: Terminal, folder: Path) -> None:
    """The footer and `?` lead to the most changed layer, to histograms, the row of a pixel and a word's map."""
    browser.until(lambda: all(hint in browser.lines[-1] for hint in (": Go to", "S Sort", "W Compare", "? Help")))
    browser.press("?")
    for hint in ("largest first, most", "Go to a step or layer", "Compare with another trace"):
        browser.until(hint)
    browser.press("\x1b")
    browser.until(lambda: "Go to a step or layer" not in browser.text)

    snapshot = Loader(open_trace(folder / "seed0.zarr")).snapshot()
    layers = [layer for layer in snapshot.layers.values() if layer.module]
    changed = ranked(layers, snapshot, "std", "changed")[0][0].name
    browser.press("SS")
    browser.until("most changed first")
    browser.until(lambda: changed in browser.lines[2] and "Δ" in browser.lines[2])

    browser.press("\x1b")
    browser.until(lambda: "most changed first" not in browser.text)
    browser.press(":unet.mid_block\r3")
    browser.until("over the steps, from top to bottom")
    browser.until(lambda: "unet.mid_block " in browser.lines[2])
    browser.settle()
    assert len(colours(browser)) > 20

    browser.press(f":mid attn1 step {STEP}\r5")
    browser.until(lambda: SELF in browser.lines[2] and f"step {STEP} " in browser.lines[2])
    browser.until("where (4, 4) looks")
    browser.press(RIGHT + RIGHT)
    browser.until("where (4, 6) looks")
    browser.until("at (4, 6)")

    browser.press(f":mid attn2 step {STEP}\r")
    browser.until(lambda: CROSS in browser.lines[2])
    browser.until("square")
    browser.press("g")
    browser.until("share of attention   <|startoftext|>")
    for word in ("a", "red", "circle"):
        browser.press("j")
        browser.until(f"share of attention   {word} ")
    browser.until("share of circle over the steps")
    share = re.search(r"▸ circle [^│]*?([\d.]+) %", browser.text)
    assert share is not None and 0 < float(share[1]) < 100
    assert f"step {STEP} " in browser.lines[2] and len(colours(browser)) > 20
    assert browser.leave() == 0


def test_where_two_seeds_part(browser: Terminal, folder: Path) -> None:
    """`W`, enter and `n` lead to the first layer that differs between two runs, and escape back to the trace."""
    comparison = Comparison(open_trace(folder / "seed0.zarr"), open_trace(folder / "seed1.zarr"))
    first = comparison.table.first_over()
    assert first is not None and first.steps is not None
    browser.press("W")
    browser.until("seed1.zarr")
    browser.press("\r")
    browser.until(f"first over: step {first.steps[0]} {first.pair.a.name}")
    browser.press("n")
    browser.until(f"▶  {label_of(first.pair.a)} ")
    browser.press("\x1b")
    browser.until("? Help")
    browser.until(lambda: "298 layers" in browser.lines[0])
    assert browser.leave() == 0


def colours(terminal: Terminal) -> set[str]:
    """The true colours of what is drawn in half blocks."""
    return {cell.fg for cell in terminal.cells("▀") if re.fullmatch("[0-9a-f]{6}", cell.fg)}

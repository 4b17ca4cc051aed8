"""The browser in a real pseudo-terminal: colours, sizes, and what stays behind."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from diffusion_xray.tracer.cli import main

from .terminal import Terminal, strangers

Start = Callable[..., Terminal]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trace that `dxray demo` makes."""
    path = tmp_path_factory.mktemp("demo") / "demo.zarr"
    assert main(["demo", "--no-view", "--steps", "11", "--out", str(path)]) == 0
    return path


def test_from_open_to_a_picture(demo: Path) -> None:
    """In a terminal, keys alone lead from the first screen to a layer, a step and its picture in true colours."""
    with Terminal(["view", demo.name], folder=demo.parent, COLORTERM="truecolor") as terminal:
        terminal.until("11 steps")
        assert terminal.lines[0].startswith(" dxray  demo.zarr")
        terminal.press("/")
        terminal.until("words of a layer's name")
        terminal.press("mid_block\r")
        terminal.until(lambda: "unet.mid_block " in terminal.lines[2])
        terminal.press("[")
        terminal.until("step 9")
        terminal.press("4")
        terminal.until("feature map")
        terminal.settle()
        picture = [cell for cell in terminal.cells("▀") if re.fullmatch("[0-9a-f]{6}", cell.fg)]
        assert len({cell.fg for cell in picture}) > 20
        assert {"440154", "fde725"} <= {cell.fg for cell in picture}  # the ends of viridis
        assert strangers(terminal.sent) == []
        assert terminal.leave() == 0
        assert strangers(terminal.sent) == []


IMAGE = ["--layer", "unet.down_blocks.0", "--step", "3", "--tab", "image"]


@pytest.fixture
def start(traces: dict[str, Path]) -> Start:
    """Open the picture of a layer in a terminal."""

    def begin(*, trace: str = "normal", **options: object) -> Terminal:
        path = traces[trace]
        return Terminal(["view", path.name, *IMAGE], folder=path.parent, **options)  # type: ignore[arg-type]

    return begin


def test_256_colours(start: Start) -> None:
    """Without COLORTERM the picture is drawn in the 256 colours that every terminal has."""
    with start() as terminal:
        terminal.until("feature map")
        terminal.settle()
        assert b"38;5;" in terminal.sent and b"38;2;" not in terminal.sent
        assert len({cell.fg for cell in terminal.cells("▀")}) > 10


def test_16_colours(start: Start) -> None:
    """With 16 colours the picture is drawn in shades, and a note names what to set."""
    with start(TERM="xterm") as terminal:
        terminal.until("feature map")
        terminal.until("COLORTERM=truecolor")
        terminal.settle()
        assert not re.search(rb"[34]8;[25];", terminal.sent)
        assert all(terminal.cells(shade) for shade in "░▒▓█")


def test_no_color(start: Start) -> None:
    """With NO_COLOR everything is grey, and the picture keeps its light and dark."""
    with start(NO_COLOR="1", COLORTERM="truecolor") as terminal:
        terminal.until("feature map")
        terminal.settle()
        for red, green, blue in re.findall(rb"[34]8;2;(\d+);(\d+);(\d+)", terminal.sent):
            assert red == green == blue
        assert len({cell.fg for cell in terminal.cells("▀")}) > 10


def test_light_theme(start: Start) -> None:
    """In a light theme every letter stands out from its background."""
    with start(TEXTUAL_THEME="textual-light", COLORTERM="truecolor") as terminal:
        terminal.until("feature map")
        terminal.settle()
        assert luminance(terminal.cell(3, 60).bg) > 0.7
        for row, line in enumerate(terminal.lines):
            for column, sign in enumerate(line):
                if sign.isalnum():
                    cell = terminal.cell(row, column)
                    assert contrast(cell.fg, cell.bg) > 2.5, (line, column)


def luminance(colour: str) -> float:
    """Relative luminance of a colour of six digits (WCAG 2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, from 1 to 21 (WCAG 2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_sizes(start: Start) -> None:
    """80 × 24 holds a view; a window too small says so, and the browser is back when it grows."""
    with start(size=(80, 24)) as terminal:
        terminal.until("feature map")
        terminal.until("? Help")
        assert "std per step" in terminal.lines[22] and "? Help" in terminal.lines[23]
        terminal.resize(50, 12)
        terminal.until("60 × 16")
        terminal.settle()
        assert "feature map" not in terminal.text
        terminal.resize(120, 40)
        terminal.until("feature map")
        terminal.until("Layers")


def test_terminal_is_restored(start: Start, tmp_path: Path) -> None:
    """After leaving, the terminal is as it was: its settings, its screen, its cursor, its mouse, its keyboard."""
    around = f'stty -g >{tmp_path}/before; "$@"; echo $? >{tmp_path}/code; stty -g >{tmp_path}/after'
    with start(shell=around) as terminal:
        terminal.until("feature map")
        terminal.leave()
        assert (tmp_path / "code").read_text() == "0\n"
        assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()
        for mode in (1049, 1000, 1003, 1006, 2004):
            assert last(terminal.sent, mode) == b"l", mode
        assert last(terminal.sent, 25) == b"h"


def last(sent: bytes, mode: int) -> bytes:
    """How a mode of the terminal was left: "h" for on, "l" for off."""
    found: list[bytes] = re.findall(rb"\x1b\[\?%d([hl])" % mode, sent)
    return found[-1]


def test_stdout_is_free(start: Start, tmp_path: Path) -> None:
    """The browser draws on stderr: with stdout in a file it works, and the file stays empty."""
    with start(shell=f'"$@" >{tmp_path}/out') as terminal:
        terminal.until("feature map")
        assert terminal.leave() == 0
        assert (tmp_path / "out").read_bytes() == b""


def test_errors_are_one_line(traces: dict[str, Path]) -> None:
    """What is wrong is told before the screen is taken: one line, and exit code 2."""
    with Terminal(["view", "normal.zarr", "--step", "99"], folder=traces["normal"].parent) as terminal:
        assert terminal.leave("") == 2
        assert terminal.sent.startswith(b"dxray: no step 99") and terminal.sent.count(b"\n") == 1

"""Pictures of the screens. After a wanted change: `pytest tests/viewer --snapshot-update`, and look at the report."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import textual
from rich.color import ColorSystem
from textual.pilot import Pilot

from diffusion_xray.tracer import open_trace
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.loader import Answer, Loader
from diffusion_xray.viewer.opening import find_opening
from diffusion_xray.viewer.screens.main import MainScreen

from .fewer_colours import FewerColours
from .live import cut, until

DRAWN_WITH = "8.2.8"

pytestmark = pytest.mark.skipif(textual.__version__ != DRAWN_WITH, reason=f"pictures are of textual {DRAWN_WITH}")

SIZES = [(120, 40), (80, 24)]


async def settled(pilot: Pilot[None]) -> None:
    """Wait until everything has been read and drawn."""
    await pilot.pause(0.2)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


KEYS = {
    "values": ("normal", {"layer": "unet.down_blocks.0", "step": 2, "tab": "values"}, ["tab", "down", "right"]),
    "mosaic": ("normal", {"layer": "unet.down_blocks.0", "step": 2, "tab": "image"}, ["z"]),
    "principal": ("normal", {"layer": "unet.down_blocks.0", "step": 2, "tab": "image"}, ["p", "p", "p"]),
    "ridge": ("normal", {"layer": "unet.conv_in", "step": 3, "tab": "hist"}, ["v"]),
    "sorted": ("normal", {"layer": "unet.conv_in", "step": 3, "tab": "stats"}, ["r", "S", "S", "asterisk"]),
    "faults": ("faulty", {}, ["exclamation_mark", "colon", *"step 4"]),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", KEYS)
def test_keys(
    snap_compare: Callable[..., bool], browser: Callable[..., Browser], state: str, size: tuple[int, int]
) -> None:
    """What keys lead to looks as it did."""
    trace, where, keys = KEYS[state]

    async def press(pilot: Pilot[None]) -> None:
        await settled(pilot)
        for key in keys:
            await pilot.press(key)
            await settled(pilot)

    assert snap_compare(browser(trace, **where), terminal_size=size, run_before=press)


def test_no_color(
    snap_compare: Callable[..., bool], browser: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without colours everything can still be told apart."""
    monkeypatch.setenv("NO_COLOR", "1")
    app = browser("faulty", shade=True, layer="unet.mid_block", step=4, tab="image")
    assert snap_compare(app, terminal_size=(120, 40), run_before=settled)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("trace", "where"),
    [
        ("normal", {"step": 3}),
        ("faulty", {}),
        ("faulty", {"layer": "unet.mid_block", "step": 4, "tab": "stats"}),
        ("normal", {"layer": "unet.conv_in", "step": 3, "tab": "hist"}),
        ("normal", {"layer": "unet.down_blocks.0", "step": 2, "tab": "image"}),
        ("statistics", {"layer": "unet.mid_block", "tab": "image"}),
        ("empty", {}),
    ],
    ids=["normal", "fault", "fault-stats", "hist", "image", "statistics-only", "empty"],
)
def test_screen(
    snap_compare: Callable[..., bool],
    browser: Callable[..., Browser],
    trace: str,
    where: dict[str, Any],
    size: tuple[int, int],
) -> None:
    """Each state of a trace looks as it did."""
    assert snap_compare(browser(trace, **where), terminal_size=size, run_before=settled)


def test_light_theme(snap_compare: Callable[..., bool], browser: Callable[..., Browser]) -> None:
    """In a light theme everything can be read."""

    async def lighten(pilot: Pilot[None]) -> None:
        pilot.app.theme = "textual-light"
        await settled(pilot)

    assert snap_compare(browser("faulty"), terminal_size=(120, 40), run_before=lighten)


def test_tree_page(snap_compare: Callable[..., bool], browser: Callable[..., Browser]) -> None:
    """At 80 columns `b` shows the layers alone."""
    assert snap_compare(browser("faulty"), terminal_size=(80, 24), press=["b"], run_before=settled)


LARGE = (200, 50)
STATES: dict[str, tuple[str, dict[str, Any]]] = {
    "fault": ("faulty", {}),
    "hist": ("normal", {"layer": "unet.conv_in", "step": 3, "tab": "hist"}),
    "image": ("normal", {"layer": "unet.down_blocks.0", "step": 2, "tab": "image"}),
    "values": ("normal", {"layer": "unet.down_blocks.0", "step": 2, "tab": "values"}),
}


@pytest.mark.parametrize("state", STATES)
def test_large_screen(snap_compare: Callable[..., bool], browser: Callable[..., Browser], state: str) -> None:
    """A large window is made use of."""
    trace, where = STATES[state]
    assert snap_compare(browser(trace, **where), terminal_size=LARGE, run_before=settled)


@pytest.mark.parametrize("system", [ColorSystem.EIGHT_BIT, ColorSystem.STANDARD], ids=["256", "16"])
@pytest.mark.parametrize("state", ["fault", "hist", "image"])
def test_fewer_colours(
    snap_compare: Callable[..., bool], browser: Callable[..., Browser], state: str, system: ColorSystem
) -> None:
    """With 256 colours it looks much the same; with 16, pictures are of shades."""
    trace, where = STATES[state]
    app = browser(trace, shade=system is ColorSystem.STANDARD, **where)
    app._filters.append(FewerColours(system))
    assert snap_compare(app, terminal_size=(120, 40), run_before=settled)


@pytest.mark.parametrize("state", ["fault", "hist", "image"])
def test_grey(
    snap_compare: Callable[..., bool],
    browser: Callable[..., Browser],
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    """With NO_COLOR in a terminal that has colours, pictures keep their light and dark."""
    monkeypatch.setenv("NO_COLOR", "1")
    trace, where = STATES[state]
    assert snap_compare(browser(trace, **where), terminal_size=(120, 40), run_before=settled)


@pytest.mark.parametrize("state", ["hist", "image", "values"])
def test_light_views(snap_compare: Callable[..., bool], browser: Callable[..., Browser], state: str) -> None:
    """In a light theme each view can be read."""
    trace, where = STATES[state]

    async def lighten(pilot: Pilot[None]) -> None:
        pilot.app.theme = "textual-light"
        await settled(pilot)

    assert snap_compare(browser(trace, **where), terminal_size=(120, 40), run_before=lighten)


@pytest.mark.parametrize("size", [*SIZES, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", ["following", "looking-back"])
def test_live(
    snap_compare: Callable[..., bool],
    browser: Callable[..., Browser],
    traces: dict[str, Path],
    tmp_path: Path,
    state: str,
    size: tuple[int, int],
) -> None:
    """A run that is being written, followed; and with steps that came while the user looked back."""
    path = tmp_path / "live.zarr"
    shutil.copytree(traces["normal"], path)
    cut(path, 2, "recording")

    async def look(pilot: Pilot[None]) -> None:
        await settled(pilot)
        if state == "looking-back":
            await pilot.press("left_square_bracket")
            cut(path, 4, "recording")
            screen = pilot.app.screen
            assert isinstance(screen, MainScreen)
            await until(pilot, lambda: screen.snapshot.steps == 4)
        await settled(pilot)

    assert snap_compare(browser(path), terminal_size=size, run_before=look)


class Waiting(Loader):
    """A trace on a disk that takes its time."""

    def read(self, *arguments: Any, **options: Any) -> Answer:
        """Answer too late for the picture."""
        time.sleep(2)
        return super().read(*arguments, **options)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("tab", ["overview", "image"])
def test_loading(snap_compare: Callable[..., bool], traces: dict[str, Path], tab: str, size: tuple[int, int]) -> None:
    """What statistics tell is there at once; what must be read is said to be coming."""
    loader = Waiting(open_trace(traces["normal"]))
    opening = find_opening(loader.snapshot(), layer="unet.conv_in", step=3, tab=tab)
    assert snap_compare(Browser(loader, opening, shade=False), terminal_size=size, press=["left_square_bracket"])


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_help(snap_compare: Callable[..., bool], browser: Callable[..., Browser], size: tuple[int, int]) -> None:
    """All keys, side by side where there is room."""
    app = browser("normal", tab="image", layer="unet.conv_in")
    assert snap_compare(app, terminal_size=size, run_before=settled, press=["question_mark"])

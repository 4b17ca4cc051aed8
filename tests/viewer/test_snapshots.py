"""Pictures of the screens. After a wanted change: `pytest tests/viewer --snapshot-update`, and look at the report."""

from collections.abc import Callable
from typing import Any

import pytest
import textual
from textual.pilot import Pilot

from diffusion_xray.viewer.app import Browser

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

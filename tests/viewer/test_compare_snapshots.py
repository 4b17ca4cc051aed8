"""Pictures of the comparison. After a wanted change: `pytest tests/viewer --snapshot-update`, and look."""

from collections.abc import Callable

import pytest
import textual
from rich.color import ColorSystem
from textual.pilot import Pilot

from diffusion_xray.viewer.compare.app import CompareApp

from .fewer_colours import FewerColours

DRAWN_WITH = "8.2.8"

pytestmark = pytest.mark.skipif(textual.__version__ != DRAWN_WITH, reason=f"pictures are of textual {DRAWN_WITH}")

SIZES = [(120, 40), (80, 24)]


async def settled(pilot: Pilot[None]) -> None:
    """Wait until everything has been compared, read and drawn."""
    for _ in range(2):
        await pilot.pause(0.2)
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("pair", ["late", "broken", "statistics", "wide", "other", "same"])
def test_screen(
    snap_compare: Callable[..., bool], compared: Callable[..., CompareApp], pair: str, size: tuple[int, int]
) -> None:
    """Each way in which two runs differ looks as it did."""
    assert snap_compare(compared("normal", pair), terminal_size=size, run_before=settled)


def test_facts(snap_compare: Callable[..., bool], compared: Callable[..., CompareApp]) -> None:
    """What the runs have in common, with steps linked by timestep."""

    async def linked(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press("equals_sign")
        await settled(pilot)

    app = compared("normal", "few")
    assert snap_compare(app, terminal_size=(120, 40), run_before=linked)


@pytest.mark.parametrize("presses", [1, 2, 3], ids=["absolute", "relative", "wipe"])
def test_modes(snap_compare: Callable[..., bool], compared: Callable[..., CompareApp], presses: int) -> None:
    """The difference in its modes."""

    async def turned(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press(*["X"] * presses)
        await settled(pilot)

    assert snap_compare(compared("normal", "seed"), terminal_size=(120, 40), run_before=turned)


def test_light_theme(snap_compare: Callable[..., bool], compared: Callable[..., CompareApp]) -> None:
    """In a light theme everything can be read."""

    async def lighten(pilot: Pilot[None]) -> None:
        pilot.app.theme = "textual-light"
        await settled(pilot)

    assert snap_compare(compared("normal", "late"), terminal_size=(120, 40), run_before=lighten)


def test_large_screen(snap_compare: Callable[..., bool], compared: Callable[..., CompareApp]) -> None:
    """A large window is made use of."""
    assert snap_compare(compared("normal", "late"), terminal_size=(200, 50), run_before=settled)


@pytest.mark.parametrize("system", [ColorSystem.EIGHT_BIT, ColorSystem.STANDARD], ids=["256", "16"])
def test_fewer_colours(
    snap_compare: Callable[..., bool], compared: Callable[..., CompareApp], system: ColorSystem
) -> None:
    """With 256 colours it looks much the same; with 16, pictures are of shades."""
    app = compared("normal", "late", shade=system is ColorSystem.STANDARD)
    app._filters.append(FewerColours(system))
    assert snap_compare(app, terminal_size=(120, 40), run_before=settled)


def test_grey(
    snap_compare: Callable[..., bool], compared: Callable[..., CompareApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With NO_COLOR everything can still be told apart."""
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(compared("normal", "late"), terminal_size=(120, 40), run_before=settled)

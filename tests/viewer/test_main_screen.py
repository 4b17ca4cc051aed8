"""The main screen's own: room for the layers, places that were left, what a trace says of itself."""

from __future__ import annotations

from collections.abc import Callable

from textual.containers import VerticalScroll
from textual.widgets import OptionList, Static

from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.screens.about import About
from diffusion_xray.viewer.screens.main import MainScreen

from .test_browser import layer, settle

Make = Callable[..., Browser]
SIZE = (120, 40)


async def test_the_layers_get_more_room(browser: Make) -> None:
    """Keys and a drag of the edge move it, the view keeps some room, and a narrow terminal forgets it not."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await settle(pilot)
        side = pilot.app.screen.query_one("#side")
        assert side.outer_size.width == 38
        await pilot.press("shift+right")
        await pilot.pause()
        assert side.outer_size.width == 42
        await pilot.press(*["shift+left"] * 9)
        await pilot.pause()
        assert side.outer_size.width == 24
        await pilot.mouse_down(side, offset=(23, 5))
        await pilot.hover(offset=(60, 10))
        await pilot.mouse_up(offset=(60, 10))
        await pilot.pause()
        assert side.outer_size.width == 61
        await pilot.resize_terminal(90, 30)
        await pilot.press("b")
        await pilot.pause()
        assert side.outer_size.width == 90
        await pilot.resize_terminal(110, 30)
        await pilot.pause()
        assert side.outer_size.width == 61


async def test_places_that_were_left(browser: Make) -> None:
    """`ctrl+o` lists the places that jumps have left, the latest on top, and goes back to the one chosen."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+o")
        await pilot.pause()
        assert "Nowhere yet" in str(pilot.app.screen.query_one(Static).content)
        await pilot.press("escape")
        for place in ("conv_out", "down 0 act", "mid conv"):
            await pilot.press("colon", *place.replace(" ", "  "), "enter")
            await settle(pilot)
        assert layer(pilot) == "unet.mid_block.conv"
        await pilot.press("ctrl+o")
        await pilot.pause()
        options = pilot.app.screen.query_one(OptionList)
        listed = [str(options.get_option_at_index(at).prompt).split()[-1] for at in range(options.option_count)]
        assert listed == ["unet.down_blocks.0.act", "unet.conv_out", "unet"]
        await pilot.press("down", "enter")
        await settle(pilot)
        assert layer(pilot) == "unet.conv_out"
        await pilot.press("minus")
        await settle(pilot)
        assert layer(pilot) == "unet.mid_block.conv"


async def test_what_a_trace_says_of_itself(browser: Make) -> None:
    """`I` shows what `dxray info` says: status, versions, how it ended; escape leaves."""
    async with browser("failed").run_test(size=SIZE) as pilot:
        await pilot.press("I")
        await settle(pilot)
        shown = pilot.app.screen
        assert isinstance(shown, About)
        lines = [shown.query_one(VerticalScroll).query_one(Static).render_line(y).text for y in range(12)]
        told = "\n".join(lines)
        assert "failed" in told and "RuntimeError: the [red]power[/red] went \\x1b[31mout" in told
        assert "torch" in told
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(pilot.app.screen, MainScreen)

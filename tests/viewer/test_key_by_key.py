"""Keys that come all at once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from textual import events
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input

from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.screens.main import MainScreen
from diffusion_xray.viewer.widgets.layer_tree import LayerTree

from .waiting import until

Make = Callable[..., Browser]
NAMES = {"/": "slash", ":": "colon", "[": "left_square_bracket", "\r": "enter", "\t": "tab", " ": "space"}


async def type_at_once(pilot: Pilot[None], text: str) -> None:
    """Hand over keys as a terminal does that had them in one read, and wait until they are handled."""
    for sign in text:
        pilot.app.post_message(events.Key(NAMES.get(sign, sign), sign))
    await pilot.pause(0.3)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def main(pilot: Pilot[None]) -> MainScreen:
    """The screen of the trace."""
    assert isinstance(pilot.app.screen, MainScreen)
    return pilot.app.screen


def place(pilot: Pilot[None]) -> tuple[str, int]:
    """The layer and the step shown."""
    scene = main(pilot).scene
    return (scene.site.name if scene.site else "", scene.step)


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_all_letters_reach_the_filter(browser: Make, size: tuple[int, int]) -> None:
    """Of "/mid" typed at once no letter acts as a key of its own: the view is not zoomed, the field holds them all."""
    async with browser("normal").run_test(size=size) as pilot:
        await pilot.pause()
        await type_at_once(pilot, "/mid")
        assert main(pilot).query_one("#filter", Input).value == "mid"
        assert main(pilot).maximized is None
        assert place(pilot)[0] == "unet.mid_block"


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_a_whole_jump_at_once(browser: Make, size: tuple[int, int]) -> None:
    """A colon, a layer, a step, enter, and the keys after it each act where the one before has led."""
    async with browser("normal").run_test(size=size) as pilot:
        await pilot.pause()
        await type_at_once(pilot, ":mid step 4\r[[4")
        assert place(pilot) == ("unet.mid_block", 2)
        assert main(pilot).scene.view.id == "image"
        assert isinstance(pilot.app.focused, LayerTree)


async def test_a_filter_and_what_follows_at_once(browser: Make) -> None:
    """What is typed after enter is no part of the filter."""
    async with browser("normal").run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        await type_at_once(pilot, "/conv\rj[")
        assert main(pilot).query_one("#filter", Input).value == "conv"
        assert place(pilot) == ("unet.down_blocks.0.conv", 4)


async def test_all_letters_reach_the_palette(browser: Make) -> None:
    """A screen that opens takes the keys that come with the one that opened it."""
    async with browser("normal").run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        pilot.app.post_message(events.Key("ctrl+p", None))
        await type_at_once(pilot, "conv mid")
        assert isinstance(pilot.app.screen, CommandPalette)
        assert pilot.app.screen.query_one(Input).value == "conv mid"


async def test_a_paste_waits_for_its_turn(browser: Make) -> None:
    """Text that is pasted right after a key goes into the field that the key opened."""
    async with browser("normal").run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        pilot.app.post_message(events.Key("slash", "/"))
        pilot.app.post_message(events.Paste("mid_block"))
        await type_at_once(pilot, " conv")
        assert main(pilot).query_one("#filter", Input).value == "mid_block conv"


async def test_keys_of_a_screen_that_goes(browser: Make) -> None:
    """The keys after one that closes a screen act on the screen below."""
    async with browser("normal").run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        pilot.app.post_message(events.Key("e", "e"))
        pilot.app.post_message(events.Key("escape", None))
        await type_at_once(pilot, "[[")
        assert place(pilot)[1] == 3


@pytest.mark.parametrize("keys", ["?", "y", "e", "W"])
async def test_keys_after_a_menu(browser: Make, keys: str) -> None:
    """Back from a menu, keys act on the screen, also where the layers are hidden and nothing has the focus."""
    async with browser("normal").run_test(size=(80, 24)) as pilot:
        await pilot.press("b", "b")
        await pilot.press("question_mark" if keys == "?" else keys)
        await pilot.pause(0.1)
        await pilot.press("escape")
        await type_at_once(pilot, "[[")
        assert place(pilot)[1] == 3


async def test_an_arrow_right_after_the_tab_is_for_the_view(browser: Make, embedded: Path) -> None:
    """A view that takes the focus with its first answer gets the keys typed before that, and the layer stays."""
    async with browser(embedded, layer="unet").run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.3)
        await pilot.app.workers.wait_for_complete()
        pilot.app.post_message(events.Key("5", "5"))
        pilot.app.post_message(events.Key("down", None))
        await type_at_once(pilot, "w")
        second = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2"  # of those on offer
        await until(pilot, lambda: place(pilot)[0] == second)

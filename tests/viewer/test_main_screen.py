"""The main screen's own: room for the layers, places that were left, what a trace says of itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from textual.containers import VerticalScroll
from textual.widgets import Input, OptionList, Static

from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.goto import find_place
from diffusion_xray.viewer.places import NamedSteps, Steps
from diffusion_xray.viewer.screens.about import About
from diffusion_xray.viewer.screens.main import MainScreen
from diffusion_xray.viewer.widgets.layer_tree import LayerTree

from .test_browser import layer, scene, settle, text

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


@pytest.mark.parametrize("keys", [["S"], ["S", "S"], ["grave_accent"], ["slash", *"conv", "enter"]])
async def test_a_layer_survives_how_the_layers_are_listed(browser: Make, keys: list[str]) -> None:
    """Back in the tree, a layer that was chosen in a list is the one shown, also where its branch was folded."""
    async with browser("normal", layer="unet").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press(*keys, "down", "down")
        await settle(pilot)
        chosen = layer(pilot)
        await pilot.press("grave_accent" if keys == ["grave_accent"] else "escape")
        await settle(pilot)
        assert layer(pilot) == chosen
        tree = pilot.app.screen.query_one(LayerTree)
        assert chosen in {row.layer.name for row in tree._rows} and not tree.arrangement.is_list


async def test_sorting_by_another_statistic_keeps_the_layer_in_sight(browser: Make) -> None:
    """The chosen row stays on the screen when the list is sorted anew."""
    async with browser("normal").run_test(size=(120, 16)) as pilot:
        await pilot.press("S", "down", "down", *["s"] * 3)
        await settle(pilot)
        tree = pilot.app.screen.query_one(LayerTree)
        row = [entry.layer.name for entry in tree._rows].index(layer(pilot))
        assert 0 <= row - round(tree.scroll_offset.y) < tree.size.height


async def test_a_narrow_terminal(browser: Make) -> None:
    """Its footer names the key of the layers first, sorting shows them, and a tab takes their place."""
    async with browser("normal").run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert text(pilot, "#footer").startswith(" b Layers")
        side = pilot.app.screen.query_one("#side")
        await pilot.press("S")
        await settle(pilot)
        assert side.display and str(pilot.app.screen.query_one(LayerTree).arrangement) == "largest first"
        await pilot.press("3")
        await settle(pilot)
        assert not side.display and scene(pilot).view.id == "hist"
        await pilot.resize_terminal(120, 40)
        await settle(pilot)
        assert "b Layers" not in text(pilot, "#footer")


async def test_tab_passes_by_a_filter(browser: Make) -> None:
    """Once its words are given, the field of the filter is not where tab leads, and `/` opens it again."""
    async with browser("normal", tab="image").run_test(size=SIZE) as pilot:
        await pilot.press("slash", *"conv", "enter")
        await settle(pilot)
        field = pilot.app.screen.query_one("#filter", Input)
        for _ in range(3):
            await pilot.press("tab")
            await pilot.pause()
            assert pilot.app.focused is not field
        await pilot.press("slash")
        await pilot.pause()
        assert pilot.app.focused is field


async def test_a_group_is_not_pinned(browser: Make) -> None:
    """A group that never fired is in no list, so it is not pinned, which is told."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await settle(pilot)
        tree = pilot.app.screen.query_one(LayerTree)
        tree._rows[0] = replace(tree._rows[0], layer=replace(tree._rows[0].layer, module=None))
        await pilot.press("g", "asterisk")
        await pilot.pause()
        assert tree.pins == set()
        assert any("never fires" in note.message for note in pilot.app._notifications)


@pytest.mark.parametrize(
    ("words", "name"),
    [("down_blocks.*.conv", "unet.down_blocks.0.conv"), ("**.act step 2", "unet.down_blocks.0.act")],
)
async def test_a_glob_is_a_place(browser: Make, words: str, name: str) -> None:
    """After a colon a glob leads to its first match, and need not begin at the component."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await settle(pilot)
        layer_found, _ = find_place(words, scene(pilot).snapshot)
        assert layer_found is not None and layer_found.name == name


@pytest.mark.parametrize("words", ["step 3", "3"])
async def test_the_palette_knows_a_step_by_its_number(browser: Make, words: str) -> None:
    """Of steps whose number or timestep holds a figure, that of the very number is the first."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await settle(pilot)
        provider = Steps(pilot.app.screen)
        assert next(entry.split()[1] for entry, *_ in provider.entries(words)) == "3"
        found = [hit.text async for hit in NamedSteps(pilot.app.screen).search("step 3")]
        assert found and str(found[0]).startswith("step 3 ")
        assert [hit async for hit in NamedSteps(pilot.app.screen).search("step")] == []


async def test_percentiles_lie_between_the_extremes(browser: Make) -> None:
    """A bin of the histogram reaches beyond its values; what is shown of it does not."""
    async with browser("normal", layer="unet.conv_in").run_test(size=SIZE) as pilot:
        await settle(pilot)
        numbers = dict(re.findall(r"(min|max|p1|p99) +(-?[\d.e+-]+)", text(pilot, "#overview")))
        assert float(numbers["min"]) <= float(numbers["p1"]) <= float(numbers["p99"]) <= float(numbers["max"])

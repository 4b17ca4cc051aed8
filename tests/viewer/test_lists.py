"""The layers as a list: sorted, filtered, pinned; and a list of a hundred thousand."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from textual.pilot import Pilot

from diffusion_xray.tracer.info import ModuleInfo, SiteInfo, TraceInfo
from diffusion_xray.tracer.layout import STATISTICS
from diffusion_xray.tracer.trace import StatisticsTable
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.model import Snapshot
from diffusion_xray.viewer.order import ranked, scores
from diffusion_xray.viewer.screens.main import MainScreen
from diffusion_xray.viewer.widgets.canvas import Canvas
from diffusion_xray.viewer.widgets.layer_tree import LayerTree

Make = Callable[..., Browser]
SIZE = (120, 40)


def made_up(series: Mapping[str, list[float]]) -> Snapshot:
    """A trace in which each layer has these standard deviations over the steps."""
    sites = tuple(
        SiteInfo.from_attributes({"name": name, "shape": [4]}, row=row, stepped=True) for row, name in enumerate(series)
    )
    steps = len(next(iter(series.values())))
    values = np.zeros((steps, len(sites), len(STATISTICS)))
    values[:, :, STATISTICS.index("std")] = np.array(list(series.values())).T
    table = StatisticsTable(
        "unet", stepped=True, sites=sites, values=values, captured=np.ones(values.shape[:2], np.uint8)
    )
    modules = {site.name: ModuleInfo(site.name, "Layer", (site,)) for site in sites}
    along = np.arange(float(steps))
    info = TraceInfo.from_attributes({})
    return Snapshot.of("made up", info, modules=modules, tables=[table], timestep=along, sigma=along)


async def settle(pilot: Pilot[None]) -> None:
    """Wait until what was asked for has been read and drawn."""
    await pilot.pause(0.1)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def rows(pilot: Pilot[None]) -> list[str]:
    """The lines of the list that hold something."""
    canvas = pilot.app.screen.query_one("#tree", Canvas)
    lines = [canvas.render_line(y).text for y in range(canvas.size.height)]
    return [line.strip() for line in lines if line.strip()]


def screen(pilot: Pilot[None]) -> MainScreen:
    """The one screen."""
    assert isinstance(pilot.app.screen, MainScreen)
    return pilot.app.screen


def test_orders() -> None:
    """The largest is by magnitude; the most changed by its range relative to its size, so that scale means nothing."""
    snapshot = made_up({"unet.a": [100, 101], "unet.b": [0.1, 0.3], "unet.c": [-200, -200], "unet.d": [np.nan, 1]})
    layers = list(snapshot.layers.values())[1:]
    assert [layer.label for layer, _ in ranked(layers, snapshot, "std", "called")] == ["a", "b", "c", "d"]
    assert [layer.label for layer, _ in ranked(layers, snapshot, "std", "largest")] == ["c", "a", "d", "b"]
    assert [layer.label for layer, _ in ranked(layers, snapshot, "std", "changed")] == ["b", "a", "c", "d"]
    assert scores(layers, snapshot, "std", "changed") == pytest.approx([1 / 100.5, 1, 0, np.nan], nan_ok=True)


async def test_sort_keys(browser: Make) -> None:
    """`S` lists the layers by size, then by change, then as they were called again; the title says how."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await settle(pilot)
        tree = rows(pilot)
        side = pilot.app.screen.query_one("#side")
        await pilot.press("S")
        assert side.border_title == "Layers · largest first"
        assert all("unet" in row or "u." in row for row in rows(pilot))
        await pilot.press("S")
        assert side.border_title == "Layers · most changed first"
        changes = [float(row.rsplit("Δ", 1)[1]) for row in rows(pilot) if "Δ" in row]
        assert len(changes) > 2 and changes == sorted(changes, reverse=True)
        await pilot.press("S")
        assert set(rows(pilot)) >= {row for row in tree if "▸" not in row}, "the branch of the chosen layer is open"


async def test_faults_only(browser: Make) -> None:
    """`!` leaves the layers with a fault, in the tree and in the list; escape brings all back."""
    async with browser("faulty").run_test(size=SIZE) as pilot:
        await settle(pilot)
        every = len(rows(pilot))
        await pilot.press("exclamation_mark")
        assert 0 < len(rows(pilot)) <= every
        assert all("✗" in row for row in rows(pilot))
        await pilot.press("grave_accent")
        assert all("✗" in row and ("unet" in row or "u." in row) for row in rows(pilot))
        await pilot.press("escape")
        assert len(rows(pilot)) == every


async def test_faults_only_without_any(browser: Make) -> None:
    """`!` in a sound trace says that there is nothing to list."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.press("exclamation_mark")
        assert rows(pilot) == ["every value is finite"]


async def test_pins(browser: Make) -> None:
    """`*` marks a layer, `P` lists the marked ones, and `*` again lets go."""
    async with browser("normal", layer="unet.conv_in").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("asterisk", "P")
        assert len(rows(pilot)) == 1 and rows(pilot)[0].startswith("* unet.conv_in")
        await pilot.press("asterisk")
        assert "no layer is pinned" in rows(pilot)[0]


async def test_a_jump_shows_what_a_filter_hides(browser: Make) -> None:
    """A jump to a layer that is not listed lists all again."""
    async with browser("normal", layer="unet.conv_in").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("asterisk", "P", "colon", *"mid", "enter")
        await settle(pilot)
        site = screen(pilot).scene.site
        assert site is not None and site.name == "unet.mid_block"
        assert any("mid_block" in row for row in rows(pilot))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("conv !mid !0 !1", ["unet.conv_in", "unet.conv_out"]),
        ("-f umbcv", ["unet.mid_block.conv"]),
        ("!unet", []),
    ],
)
async def test_words_of_the_filter(browser: Make, query: str, found: list[str]) -> None:
    """A word with "!" must not be there; after "-f" the letters need only follow one another."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert [layer.name for layer in screen(pilot).snapshot.matching(query)] == found


@pytest.mark.parametrize(
    ("words", "layer", "step"),
    [
        ("step 3", "unet", 3),
        ("2", "unet", 2),
        ("-1", "unet", 5),
        ("t=690", "unet", 2),
        ("mid conv", "unet.mid_block.conv", 5),
        ("act", "unet.down_blocks.0.act", 5),
        ("mid_block step 1", "unet.mid_block", 1),
        ("unet.conv_out t=1000", "unet.conv_out", 0),
    ],
)
async def test_go_to(browser: Make, words: str, layer: str, step: int) -> None:
    """`:` takes a step, a timestep, words of a layer, or both."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.press("colon", *words, "enter")
        await settle(pilot)
        shown = screen(pilot).scene
        assert shown.site is not None and (shown.site.name, shown.step) == (layer, step)
        assert isinstance(pilot.app.focused, LayerTree)


@pytest.mark.parametrize(
    ("words", "told"), [("step 9", "no step 9"), ("nowhere", "names no layer"), ("sigma=3", "no step")]
)
async def test_go_to_nowhere(browser: Make, words: str, told: str) -> None:
    """What does not exist is said, and the field stays for another try; escape leaves it."""
    async with browser("normal").run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("colon", *words, "enter")
        await settle(pilot)
        assert told in str([note.message for note in pilot.app._notifications])
        assert screen(pilot).query_one("#goto").display
        await pilot.press("escape")
        await pilot.pause()
        assert not screen(pilot).query_one("#goto").display


async def test_last_place(browser: Make) -> None:
    """`-` goes back over the jumps, with their view and step."""
    async with browser("faulty", layer="unet.conv_in", step=1, tab="stats").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("n", "4", "n", "minus")
        await settle(pilot)
        shown = screen(pilot).scene
        assert shown.site is not None
        assert (shown.site.name, shown.step, shown.view.id) == ("unet.down_blocks.1", 4, "image")
        await pilot.press("minus")
        await settle(pilot)
        shown = screen(pilot).scene
        assert shown.site is not None
        assert (shown.site.name, shown.step, shown.view.id) == ("unet.conv_in", 1, "stats")
        await pilot.press("minus")
        assert screen(pilot).scene.step == 1


async def test_most_changed_layer(browser: Make) -> None:
    """The palette goes to the layer that changes most."""
    async with browser("normal").run_test(size=SIZE) as pilot:
        await pilot.pause()
        main = screen(pilot)
        main.action_extreme("changed")
        layers = [layer for layer in main.snapshot.layers.values() if layer.module]
        best = ranked(layers, main.snapshot, "std", "changed")[0][0]
        assert main.scene.site is not None and main.scene.site.name == best.name


async def test_a_hundred_thousand_layers(browser: Make) -> None:
    """A list of that size draws only what is in sight: keys move in it, and the end is a key away."""
    app = browser("normal")
    app._snapshot = made_up({f"unet.blocks.{at}.conv": [1.0, float(at)] for at in range(100_000)})
    app._opening = type(app._opening)("", None, 1)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("grave_accent", "g", "down", "G", "up")
        site = screen(pilot).scene.site
        assert site is not None and site.name == "unet.blocks.99998.conv"
        assert len(rows(pilot)) < 40
        await pilot.press("slash", *"99997")
        assert len(rows(pilot)) == 1

"""Comparing from the browser: the menu of traces, and the way there and back."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.compare.screen import CompareScreen
from diffusion_xray.viewer.found import find_beside
from diffusion_xray.viewer.screens.main import MainScreen
from diffusion_xray.viewer.screens.traces import TraceMenu

Make = Callable[..., Browser]
SIZE = (120, 40)


@pytest.fixture
def folder(traces: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the trace to look at, another, and one that is damaged."""
    shutil.copytree(traces["normal"], tmp_path / "one.zarr")
    shutil.copytree(traces["faulty"], tmp_path / "runs" / "other.zarr")
    (tmp_path / "torn.zarr").mkdir()
    (tmp_path / "torn.zarr" / "zarr.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def settle(pilot: Pilot[None]) -> None:
    """Wait until what was asked for has been found, read and drawn."""
    for _ in range(2):
        await pilot.pause(0.1)
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()


def lines(pilot: Pilot[None]) -> list[str]:
    """The traces that the menu lists."""
    options = pilot.app.screen.query_one(OptionList)
    return [str(options.get_option_at_index(at).prompt) for at in range(options.option_count)]


async def test_from_a_trace_to_a_comparison_and_back(browser: Make, folder: Path) -> None:
    """`W` lists the other traces, enter compares from the layer and step shown, escape comes back to them."""
    app = browser(folder / "one.zarr", layer="unet.mid_block", step=4)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("W")
        await settle(pilot)
        assert isinstance(pilot.app.screen, TraceMenu)
        assert str(pilot.app.screen.query_one("#menu").border_title) == "Compare one.zarr with"
        listed = lines(pilot)
        assert len(listed) == 2 and "not readable" in listed[0]
        assert "runs/other.zarr" in listed[1] and "6 steps" in listed[1] and "✗ step 4" in listed[1]
        await pilot.press("enter")
        await settle(pilot)
        screen = pilot.app.screen
        assert isinstance(screen, CompareScreen)
        assert (screen.state.comparison.a.name, screen.state.comparison.b.name) == ("one.zarr", "other.zarr")
        assert screen.state.pair is not None
        assert (screen.state.pair.a.name, screen.state.link) == ("unet.mid_block", 4)
        await pilot.press("escape")
        await settle(pilot)
        main = pilot.app.screen
        assert isinstance(main, MainScreen)
        assert main.scene.site is not None and (main.scene.site.name, main.scene.step) == ("unet.mid_block", 4)


async def test_a_path_that_is_typed(browser: Make, folder: Path) -> None:
    """Any path can be typed; one that leads nowhere is told, and the menu stays for another."""
    async with browser(folder / "one.zarr").run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("W")
        await settle(pilot)
        await pilot.press("tab", *"runs/no.zarr", "enter")
        await settle(pilot)
        assert isinstance(pilot.app.screen, TraceMenu)
        assert "runs/no.zarr" in str([note.message for note in pilot.app._notifications])
        pilot.app.screen.query_one("#path", Input).value = "runs/other.zarr"
        await pilot.press("enter")
        await settle(pilot)
        assert isinstance(pilot.app.screen, CompareScreen)


async def test_no_other_trace(browser: Make, traces: dict[str, Path], tmp_path: Path) -> None:
    """Where nothing is found, the menu says how to make another, and takes a path."""
    shutil.copytree(traces["normal"], tmp_path / "alone" / "one.zarr")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "alone")
        async with browser(tmp_path / "alone" / "one.zarr").run_test(size=SIZE) as pilot:
            await pilot.press("W")
            await settle(pilot)
            told = pilot.app.screen.query_one("#looking", Static)
            assert told.display and "dxray demo --seed 1" in str(told.content)
            assert isinstance(pilot.app.focused, Input)
            await pilot.press("escape")
            await settle(pilot)
            assert isinstance(pilot.app.screen, MainScreen)


async def test_shades_stay_shades(browser: Make, folder: Path) -> None:
    """A comparison begun where colours are few is drawn in shades too."""
    async with browser(folder / "one.zarr", shade=True).run_test(size=SIZE) as pilot:
        await pilot.press("W")
        await settle(pilot)
        await pilot.press("enter")
        await settle(pilot)
        assert isinstance(pilot.app.screen, CompareScreen)
        assert pilot.app.screen.state.look.shade


async def test_names_are_no_markup(browser: Make, folder: Path) -> None:
    """A trace's name with markup and control characters is listed as it is."""
    (folder / "runs" / "other.zarr").rename(folder / "runs" / "[red]\x1b[31m.zarr")
    async with browser(folder / "one.zarr").run_test(size=SIZE) as pilot:
        await pilot.press("W")
        await settle(pilot)
        assert "runs/[red]\\x1b[31m.zarr" in lines(pilot)[1]
        assert "\x1b" not in pilot.app.export_screenshot()


def test_what_lies_beside(folder: Path) -> None:
    """Below the working folder and beside the trace; each once, and not the trace itself."""
    inner = folder / "runs" / "deep.zarr"
    shutil.copytree(folder / "one.zarr", inner)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "runs")
        found = [found.path.name for found in find_beside(folder / "one.zarr")]
    assert found == ["deep.zarr", "other.zarr", "torn.zarr"]

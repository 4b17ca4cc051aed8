"""What the step looks like, beside the views."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from textual.pilot import Pilot

from diffusion_xray.tracer import Tracer
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.screens.main import MainScreen
from diffusion_xray.viewer.widgets.preview import Preview

Make = Callable[..., Browser]
BROAD = (170, 45)


async def settle(pilot: Pilot[None]) -> None:
    """Wait until what was asked for has been read and drawn."""
    await pilot.pause(0.1)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def preview(pilot: Pilot[None]) -> Preview:
    """The pictures of the step."""
    return pilot.app.screen.query_one(Preview)


def drawn(pilot: Pilot[None]) -> str:
    """Its characters."""
    canvas = preview(pilot)
    return "\n".join(canvas.render_line(y).text for y in range(canvas.size.height))


@pytest.mark.parametrize("tab", ["stats", "hist", "image", "attention", "values"])
async def test_beside_every_view_where_there_is_room(browser: Make, embedded: Path, tab: str) -> None:
    """On a broad screen latents and predicted picture stand beside every view, with their method; `V` hides them."""
    async with browser(embedded, layer="unet.mid_block", step=1, tab=tab).run_test(size=BROAD) as pilot:
        await settle(pilot)
        assert preview(pilot).display
        assert "latents" in drawn(pilot) and "x0, as predicted" in drawn(pilot) and " by " in drawn(pilot)
        await pilot.press("V")
        assert not preview(pilot).display


async def test_where_room_is_short(browser: Make, embedded: Path) -> None:
    """At 120 columns they stand beside the overview alone, until `V` asks for them."""
    async with browser(embedded, layer="unet.mid_block", step=1).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert preview(pilot).display
        await pilot.press("4")
        await settle(pilot)
        assert not preview(pilot).display
        await pilot.press("V")
        await settle(pilot)
        assert preview(pilot).display and "▀▀▀" in drawn(pilot)


async def test_they_are_of_the_step(browser: Make, embedded: Path) -> None:
    """They follow the step, also where the view itself has nothing to show."""
    async with browser(embedded, layer="unet.conv_in", step=0, tab="values").run_test(size=BROAD) as pilot:
        await settle(pilot)
        screen = pilot.app.screen
        assert isinstance(screen, MainScreen)
        assert screen.query_one("#missing").display
        first = screen.scene.previews
        assert first.latents is not None and first.x0 is not None and first.latents.shape[2] == 3
        await pilot.press("right_square_bracket")
        await settle(pilot)
        assert screen.scene.previews.latents is not None
        assert (screen.scene.previews.latents != first.latents).any()


async def test_a_trace_without(browser: Make) -> None:
    """Where there are none, no room is kept for them beside a view; `V` shows what would have recorded them."""
    async with browser("normal", tab="hist").run_test(size=BROAD) as pilot:
        await settle(pilot)
        assert not preview(pilot).display
        await pilot.press("V")
        await settle(pilot)
        assert "Capture(latents=True)" in drawn(pilot)


def recorded(path: Path, latents: torch.Tensor) -> Path:
    """A run of two steps that ended in a black picture."""
    with Tracer(torch.nn.Identity(), path, capture="statistics") as tracer:
        for step in range(2):
            tracer.step(step)
            tracer._target.components["model"](torch.zeros(1, 2))
            tracer.record_latents(latents * (2 - step), next_latents=latents * (1 - step / 2))
        tracer.record_images(np.zeros((1, 32, 32, 3), np.uint8))
    return path


async def test_why_it_is_no_fit(browser: Make, tmp_path: Path) -> None:
    """Below the pictures stands how they were made and why not from the run's own picture."""
    path = recorded(tmp_path / "run.zarr", torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    async with browser(path, step=1).run_test(size=BROAD) as pilot:
        await settle(pilot)
        words = " ".join(drawn(pilot).split())
        assert "by principal components as the picture is black" in words and "R²" not in words


@pytest.mark.filterwarnings("ignore:a value is not finite")
async def test_why_there_are_none(browser: Make, tmp_path: Path) -> None:
    """Where latents were recorded but none is finite, nobody is told to record latents."""
    path = recorded(tmp_path / "run.zarr", torch.full((1, 4, 8, 8), torch.nan))
    async with browser(path, step=1, tab="hist").run_test(size=BROAD) as pilot:
        await settle(pilot)
        assert not preview(pilot).display
        await pilot.press("V")
        await settle(pilot)
        words = " ".join(drawn(pilot).split())
        assert "the latents of every step are not finite" in words and "Capture(" not in words


async def test_zoom_takes_them_along(browser: Make, embedded: Path) -> None:
    """The whole screen is for the view and the pictures of its step."""
    async with browser(embedded, layer="unet.mid_block", step=1).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        before = pilot.app.screen.query_one("#overview").size.width
        await pilot.press("m")
        await settle(pilot)
        assert preview(pilot).display and pilot.app.screen.query_one("#overview").size.width > before

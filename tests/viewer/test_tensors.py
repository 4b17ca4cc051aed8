"""The views of a stored tensor: values, pictures, histograms over the steps, sorted statistics."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from textual.pilot import Pilot

from diffusion_xray.tracer import Tracer
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.planes import Colours, project
from diffusion_xray.viewer.scene import Scene
from diffusion_xray.viewer.screens.main import MainScreen
from diffusion_xray.viewer.widgets.canvas import Canvas
from diffusion_xray.viewer.widgets.values import exact

Make = Callable[..., Browser]
SIZE = (120, 40)


async def settle(pilot: Pilot[None]) -> None:
    """Wait until what was asked for has been read and drawn."""
    await pilot.pause(0.1)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def scene(pilot: Pilot[None]) -> Scene:
    """What the browser shows."""
    assert isinstance(pilot.app.screen, MainScreen)
    return pilot.app.screen.scene


def text(pilot: Pilot[None], selector: str) -> str:
    """The characters of a widget."""
    canvas = pilot.app.screen.query_one(selector, Canvas)
    return "\n".join(canvas.render_line(y).text for y in range(canvas.size.height))


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., Path]:
    """Record tensors by name, at one step."""

    def record(**tensors: torch.Tensor) -> Path:
        path = tmp_path / "records.zarr"
        with Tracer(torch.nn.ReLU(), path, capture="all") as tracer:
            tracer.step(0, timestep=1.0)
            for name, tensor in tensors.items():
                tracer.record(name, tensor)
        return path

    return record


@pytest.mark.filterwarnings("ignore:a value is not finite")
async def test_values_are_exact(browser: Make, recorded: Callable[..., Path]) -> None:
    """Each number is as precise as its dtype, so that it reads back to the very same value."""
    tensor = torch.tensor([[0.1, 1 / 3], [float("nan"), -1e-30]])
    path = recorded(x=tensor)
    async with browser(path, layer="records.x", tab="values").run_test(size=SIZE) as pilot:
        await settle(pilot)
        shown = text(pilot, "#values")
        assert "0.33333334" in shown and "-1e-30" in shown and "nan" in shown
        assert "batch 0 channel 0" in shown and "= 0.1" in shown
        await pilot.press("tab", "right")
        assert "batch 0 channel 1" in text(pilot, "#values") and "= 0.33333334" in text(pilot, "#values")
        await pilot.press("x")
        assert "batch 1 channel 0" in text(pilot, "#values") and "= nan" in text(pilot, "#values")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "bool"])
def test_exact_reads_back(dtype: str) -> None:
    """What is printed is the value, not a rounding of it."""
    generator = np.random.default_rng(0)
    for value in (generator.normal(size=50) * 100).astype(dtype):
        printed = exact(value)
        assert np.array([printed == "True"] if dtype == "bool" else [printed]).astype(dtype)[0] == value


@pytest.mark.parametrize("width", [100, 107, 120])
async def test_values_stay_around_the_cursor(browser: Make, recorded: Callable[..., Path], width: int) -> None:
    """Wherever the cursor goes, the column and the row under it are among those drawn."""
    tensor = torch.zeros(1, 1, 50, 14)
    tensor[0, 0, 3, 9] = 1
    path = recorded(x=tensor)
    async with browser(path, layer="records.x", tab="values").run_test(size=(width, 40)) as pilot:
        await settle(pilot)
        for key in ["x", "tab", *["right"] * 5, *["left"] * 13, *["right"] * 7, "G", "g"]:
            await pilot.press(key)
            await pilot.pause()
            where, head, *rows = text(pilot, "#values").splitlines()
            found = re.search(r"height (\d+) width (\d+)", where)
            assert found is not None
            assert found[2] in head.split() and found[1] in [row.split()[0] for row in rows if row.strip()], key


async def test_values_walk_all_dimensions(browser: Make, recorded: Callable[..., Path]) -> None:
    """`,` `.` and `<` `>` walk what is not in the table, and go round at the end."""
    tensor = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    path = recorded(x=tensor)
    async with browser(path, layer="records.x", tab="values").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "= 0.0" in text(pilot, "#values")
        await pilot.press("full_stop", "greater_than_sign")
        assert "batch 1 channel 1 height 0 width 0" in text(pilot, "#values")
        assert "= 80.0" in text(pilot, "#values")
        await pilot.press("comma", "comma", "less_than_sign")
        assert "= 40.0" in text(pilot, "#values")
        await pilot.press("tab", "down", "j", "l", "G", "g", "down")
        assert "height 1 width 1" in text(pilot, "#values") and "= 46.0" in text(pilot, "#values")


@pytest.mark.parametrize("shape", [(), (7,), (2, 7), (1, 2, 3, 4, 5)], ids=str)
async def test_values_of_every_shape(browser: Make, recorded: Callable[..., Path], shape: tuple[int, ...]) -> None:
    """Any tensor can be looked at and walked in."""
    path = recorded(x=torch.ones(shape))
    async with browser(path, layer="records.x", tab="values").run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "= 1.0" in text(pilot, "#values")
        await pilot.press("full_stop", "less_than_sign", "tab", "down", "right", "G", "pageup", "x")
        assert "= 1.0" in text(pilot, "#values")


async def test_a_large_tensor_scrolls(browser: Make, recorded: Callable[..., Path]) -> None:
    """Of a large tensor only what is in sight is drawn; the cursor brings the rest into sight."""
    tensor = torch.arange(3000.0 * 2000).reshape(1, 3000, 2000)
    path = recorded(x=tensor)
    async with browser(path, layer="records.x", tab="values").run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("tab", "G")
        await pilot.pause()
        shown = text(pilot, "#values")
        assert "token 2999" in shown and "= 5.998e+06" in shown and "5.980001e+06" in shown
        await pilot.press("right", "right", "right", "right", "right", "right", "right")
        await pilot.pause()
        assert "= 5.998007e+06" in text(pilot, "#values")
        await pilot.click("#values", offset=(12, 4))
        assert "= 5.9" in text(pilot, "#values") and "token 2999" not in text(pilot, "#values")


async def test_mosaic(browser: Make) -> None:
    """`z` shows the channels side by side, each with its number, and again one of them."""
    async with browser("normal", layer="unet.conv_in", tab="image").run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "channel 0 of 4" in text(pilot, "#image")
        await pilot.press("z")
        await settle(pilot)
        shown = text(pilot, "#image")
        assert "channels 0–3 of 4" in shown and "mosaic" in text(pilot, "TabBar")
        assert [word for line in shown.splitlines()[1:] for word in line.split() if word in "0123"] == [
            "0",
            "1",
            "2",
            "3",
        ]
        await pilot.press("z")
        await settle(pilot)
        assert "channel 0 of 4" in text(pilot, "#image")


async def test_projections(browser: Make) -> None:
    """`p` goes through mean, largest magnitude and principal components, and names them."""
    async with browser("normal", layer="unet.conv_in", tab="image").run_test(size=SIZE) as pilot:
        await settle(pilot)
        for title in ("mean of channels", "max |x| of channels", "PCA"):
            await pilot.press("p")
            await settle(pilot)
            assert title in text(pilot, "TabBar")
            assert scene(pilot).found.projection is not None
        assert "of the variance" in text(pilot, "#image")
        await pilot.press("greater_than_sign")
        await settle(pilot)
        assert "batch 1 of 2" in text(pilot, "#image")
        await pilot.press("p")
        await settle(pilot)
        assert scene(pilot).found.projection is None


async def test_value_under_the_cursor(browser: Make) -> None:
    """Arrows and the mouse point at a pixel, whose value is shown."""
    async with browser("normal", layer="unet.conv_in", tab="image").run_test(size=SIZE) as pilot:
        await settle(pilot)
        tensor = scene(pilot).found.tensor
        await pilot.press("tab", "down", "right")
        assert f"[5, 5] {tensor[0, 0, 5, 5]:.7g}" in text(pilot, "#image")
        await pilot.hover("#image", offset=(20, 3))
        await pilot.pause()
        row = int(text(pilot, "#image").rsplit("[", 1)[1].split(",")[0])
        assert row < 3


def test_projection_values() -> None:
    """Mean and magnitude are those of the channels; a pixel that is not finite in one channel stays so."""
    maps = np.array([[[1.0, -5.0], [2.0, np.nan]], [[3.0, 1.0], [2.0, 1.0]]])
    np.testing.assert_array_equal(project(maps, "mean"), [[2, -2], [2, np.nan]])
    np.testing.assert_array_equal(project(maps, "max"), [[3, 5], [2, np.nan]])
    colours = project(maps, "pca")
    assert isinstance(colours, Colours)
    assert np.isnan(colours.rgb[1, 1]).all() and np.isfinite(colours.rgb[0]).all()


@pytest.mark.parametrize("shape", [(40, 8, 8), (3, 16, 16), (2, 3, 3), (200, 4, 4)])
def test_principal_components(shape: tuple[int, int, int]) -> None:
    """Channels that follow one picture have one component, which holds all variance and looks like it."""
    generator = np.random.default_rng(0)
    base = generator.normal(size=shape[1:])
    maps = generator.normal(size=shape[0])[:, None, None] * base
    colours = project(maps, "pca")
    assert isinstance(colours, Colours)
    assert colours.share == pytest.approx(1)
    assert abs(np.corrcoef(colours.rgb[..., 0].ravel(), base.ravel())[0, 1]) > 0.98


async def test_ridge(browser: Make) -> None:
    """`v` draws the histograms over the steps as bars, a line for every step, or as colours."""
    async with browser("normal", layer="unet.conv_in", tab="hist").run_test(size=SIZE) as pilot:
        await settle(pilot)
        lower = text(pilot, "#hist").split("over the steps")[1]
        assert "▀" in lower
        await pilot.press("v")
        lower = text(pilot, "#hist").split("over the steps")[1]
        assert "▀" not in lower and "█" in lower
        steps = [found[1] for line in lower.splitlines()[1:] if (found := re.match(r"[▶ ] +(\d+) ", line))]
        assert steps == list("012345")
        assert "ridge" in text(pilot, "TabBar")


async def test_sorted_statistics(browser: Make) -> None:
    """`r` sorts the steps by the chosen statistic, both ways, and a click still goes to the step of the row."""
    async with browser("normal", layer="unet.conv_in", tab="stats").run_test(size=SIZE) as pilot:
        await settle(pilot)
        values = scene(pilot).snapshot.series(_site(pilot), "std")
        for sign, order in (("▼", np.argsort(-values)), ("▲", np.argsort(values)), ("", np.arange(6))):
            await pilot.press("r")
            lines = text(pilot, "#stats").splitlines()
            assert f"std{sign}" in lines[0]
            assert [int(line.split()[0]) for line in lines[1:7]] == order.tolist()
        await pilot.press("r")
        await pilot.click("#stats", offset=(10, 1))
        assert scene(pilot).step == int(np.argmax(values))


def _site(pilot: Pilot[None]) -> Any:
    return scene(pilot).site

"""What is exported is what is shown: projections and mosaics of a tensor."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from textual.pilot import Pilot

from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.export.formats import FORMATS
from diffusion_xray.viewer.export.selection import Selection
from diffusion_xray.viewer.export.text import snippet
from diffusion_xray.viewer.palette import colour_map
from diffusion_xray.viewer.planes import Colours
from diffusion_xray.viewer.screens.main import MainScreen

from .exporting import exported as after_keys

Make = Callable[..., Browser]


async def settle(pilot: Pilot[None]) -> None:
    """Wait until what was asked for has been read and drawn."""
    for _ in range(2):
        await pilot.pause(0.15)
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()


async def exported(browser: Make, *keys: str, **where: Any) -> Selection:
    """What the export menu is handed after some keys."""
    return await after_keys(browser("normal", tab="image", **where), keys, settle)


def made(selection: Selection, suffix: str) -> bytes:
    """The bytes of a format, which the menu offers."""
    form = next(form for form in FORMATS if form.suffix == suffix)
    assert form.why_not(selection) == "" and form.make is not None
    return form.make(selection)


def run(code: str) -> dict[str, Any]:
    """The names that some code leaves."""
    names: dict[str, Any] = {}
    exec(compile(code, "snippet", "exec"), names)
    return names


def squares(png: bytes, rows: int, columns: int) -> NDArray[np.uint8]:
    """The colours of the values of one map, shape (row, column, 3)."""
    picture = np.asarray(Image.open(io.BytesIO(png)))
    factor = 512 // max(rows, columns)
    left = (picture.shape[1] - columns * factor) // 2
    found: NDArray[np.uint8] = picture[72 + factor // 2 :: factor, left + factor // 2 :: factor][:rows, :columns]
    return found


@pytest.mark.parametrize(("times", "name"), [(1, "mean of channels"), (2, "max |x| of channels")])
async def test_projection(browser: Make, times: int, name: str) -> None:
    """Picture, numbers and code of a projection are those of the projection, and the caption names it."""
    selection = await exported(browser, *["p"] * times, layer="unet.down_blocks.0", step=3)
    tensor = selection.tensor()[0].astype(np.float64)
    wanted = tensor.mean(axis=0) if times == 1 else np.abs(tensor).max(axis=0)
    assert name in selection.sheet().caption and "4 channels" in selection.sheet().caption
    values = np.loadtxt(io.StringIO(made(selection, ".plane.csv").decode()), delimiter=",")
    np.testing.assert_allclose(values, wanted, rtol=1e-6)
    np.testing.assert_array_equal(run(snippet(selection))["plane"], values)
    colours = squares(made(selection, ".png"), 8, 8)
    level = (wanted - wanted.min()) / np.ptp(wanted)
    np.testing.assert_allclose(colours, colour_map("viridis")[(level * 255).round().astype(int)], atol=2)
    assert np.load(io.BytesIO(made(selection, ".npy"))).shape == (2, 4, 8, 8)


async def test_principal_components(browser: Make) -> None:
    """The picture of the principal components has their colours; as they are no values, there is no CSV of them."""
    selection = await exported(browser, "p", "p", "p", layer="unet.down_blocks.0", step=3)
    found = run(snippet(selection))["plane"]
    assert isinstance(found, Colours)
    np.testing.assert_allclose(squares(made(selection, ".png"), 8, 8), (found.rgb * 255).round())
    assert "PCA" in selection.sheet().caption and "of the variance" in selection.sheet().note
    refused = next(form for form in FORMATS if form.suffix == ".plane.csv").why_not(selection)
    assert refused == "PCA gives colours; p shows one plane"


async def test_mosaic(browser: Make) -> None:
    """Picture and numbers of a mosaic hold each of its channels, with their numbers, in one range."""
    selection = await exported(browser, "z", layer="unet.down_blocks.0", step=3)
    sheet, tensor = selection.sheet(), selection.tensor()[0]
    assert "channels 0 to 3 of 4" in sheet.caption and [tile.label for tile in sheet.tiles] == list("0123")
    for tile, plane in zip(sheet.tiles, tensor, strict=True):
        np.testing.assert_array_equal(tile.values, plane)
        assert tile.span == (tensor.min(), tensor.max())
    rows = np.loadtxt(io.StringIO(made(selection, ".plane.csv").decode()), delimiter=",")
    np.testing.assert_array_equal(rows[:, 0], np.repeat(np.arange(4), 8))
    np.testing.assert_array_equal(rows[:, 2:].reshape(4, 8, 8), tensor)
    np.testing.assert_array_equal(run(snippet(selection))["planes"], tensor)
    picture = np.asarray(Image.open(io.BytesIO(made(selection, ".png"))))
    for colour in ((253, 231, 37), (68, 1, 84)):  # the largest and the smallest value, once in all maps
        assert (picture == colour).all(axis=-1).any()


async def test_one_channel(browser: Make) -> None:
    """Without projection and mosaic it is the channel that is chosen."""
    selection = await exported(browser, ".", layer="unet.down_blocks.0", step=3)
    np.testing.assert_array_equal(selection.sheet().tiles[0].values, selection.tensor()[0, 1])
    assert "channel 1 of 4" in selection.sheet().caption


async def test_an_earlier_page_is_not_exported(browser: Make) -> None:
    """What another tab shows is not taken for what is shown now."""
    async with browser("normal", tab="image", layer="unet.down_blocks.0").run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("z")
        await settle(pilot)
        await pilot.press("1")
        await settle(pilot)
        assert isinstance(pilot.app.screen, MainScreen)
        assert pilot.app.screen._selection().taken.draw is None

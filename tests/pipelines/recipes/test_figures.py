"""Figures: what is drawn in grids of pictures and in heat maps."""

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion_xray.pipelines.recipes.figures import heat, picture_grid


def drawn(figure: Figure) -> NDArray[np.int64]:
    """The pixels of a figure, (y, x, 3)."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(np.int64)


def test_pictures_are_seen_and_white_ones_have_a_frame() -> None:
    """A red picture is red; around a white one on white paper is a thin line."""
    red, white = np.full((4, 4, 3), (200, 0, 0), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    pixels = drawn(picture_grid([[red, white]]))
    assert (pixels == (200, 0, 0)).all(-1).mean() > 0.2
    right = pixels[:, pixels.shape[1] // 2 + 6 :]
    assert 0.01 < (right < 240).any(-1).mean() < 0.2


def test_a_scale_with_two_sides() -> None:
    """Numbers below zero are blue and those above red, written in white where it is dark."""
    pixels = drawn(heat([[-1.0, 0.0, 1.0]], low=-1, high=1, scale="RdBu_r", written=""))
    red, green, blue = pixels.reshape(-1, 3).T
    assert ((blue > red + 50) & (green < 100)).mean() > 0.1
    assert ((red > blue + 50) & (green < 100)).mean() > 0.1
    figure = heat([[-1.0, 0.0, 1.0]], low=-1, high=1, scale="RdBu_r")
    assert [text.get_color() for text in figure.axes[0].texts] == ["white", "black", "white"]


def test_a_white_picture_has_an_edge() -> None:
    """A thin frame shows where a picture ends that is as white as the page; a place without a picture has none."""
    figure = picture_grid([[np.ones((8, 8)), np.ones((8, 8))], [np.ones((8, 8))]])
    framed = [any(spine.get_visible() for spine in axes.spines.values()) and axes.axison for axes in figure.axes]
    assert framed == [True, True, True, False]
    assert not any(len(axes.get_xticks()) for axes in figure.axes if axes.axison)

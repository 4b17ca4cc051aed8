"""Grids of pictures."""

import numpy as np

from diffusion_xray.pipelines.recipes.figures import picture_grid


def test_a_white_picture_has_an_edge() -> None:
    """A thin frame shows where a picture ends that is as white as the page; a place without a picture has none."""
    figure = picture_grid([[np.ones((8, 8)), np.ones((8, 8))], [np.ones((8, 8))]])
    framed = [any(spine.get_visible() for spine in axes.spines.values()) and axes.axison for axes in figure.axes]
    assert framed == [True, True, True, False]
    assert not any(len(axes.get_xticks()) for axes in figure.axes if axes.axison)

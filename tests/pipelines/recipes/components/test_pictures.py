"""Pictures that recipes begin with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_xray.pipelines.recipes.components.pictures import coloured, draw_scenes, open_picture, psnr
from diffusion_xray.pipelines.shapes.world import Object, Scene, render
from diffusion_xray.tracer.errors import RecipeError

SCENE = Scene((Object("red", "circle", "", 20.0, 30.0, 10.0),), "", "gray")


def test_scenes_are_drawn_as_they_are() -> None:
    """At the world's own size pixel by pixel, and larger for models that want it."""
    (drawn,) = draw_scenes([SCENE], 64)
    np.testing.assert_array_equal((drawn.permute(1, 2, 0).numpy() * 255).round(), render(SCENE)[0])
    (larger,) = draw_scenes([SCENE], 256)
    assert larger.shape == (3, 256, 256) and larger[0, 120, 80] > 0.8 and 0 <= larger.min() <= larger.max() <= 1


def test_the_middle_of_a_file(tmp_path: Path) -> None:
    """A picture of any shape is cut to a square and brought to size."""
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (255, 0, 51)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    picture = open_picture(tmp_path / "wide.png", 8)
    assert picture.shape == (1, 3, 8, 8)
    np.testing.assert_allclose(picture[0].mean((1, 2)), [1, 0, 0.2], atol=0.02)


@pytest.mark.parametrize("name", ["absent.png", "text.png"])
def test_a_file_that_is_no_picture(tmp_path: Path, name: str) -> None:
    """It is named in one line."""
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(RecipeError, match=name):
        open_picture(tmp_path / name, 8)


def test_psnr_is_in_decibels() -> None:
    """An error of a tenth everywhere is 20 dB."""
    ratio = psnr(torch.full((2, 3, 4, 4), 0.6), torch.full((2, 3, 4, 4), 0.5))
    np.testing.assert_allclose(ratio, [20, 20], rtol=1e-4)


def test_colours_of_a_scale() -> None:
    """Blue below, white in the middle, red above, and no further than the ends."""
    low, middle, high, beyond = coloured(torch.tensor([[-1.0, 0.0, 1.0, 7.0]]), "RdBu_r", low=-1, high=1)[0]
    assert low[2] > low[0] and middle.min() > 0.9 and high[0] > high[2]
    np.testing.assert_array_equal(high, beyond)

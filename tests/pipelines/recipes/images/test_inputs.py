"""Pictures to start from."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion_xray.pipelines.recipes.images.inputs import drawing, open_picture, photograph
from diffusion_xray.tracer.errors import RecipeError


@pytest.mark.parametrize("size", [64, 96])
def test_they_are_pictures_of_any_size(size: int) -> None:
    """Same picture at every call, in range; a ball and a star where they are said to be."""
    for make in (photograph, drawing):
        picture = make(size)
        assert picture.shape == (3, size, size) and picture.dtype == torch.float32
        assert picture.min() >= 0 and picture.max() <= 1
        torch.testing.assert_close(picture, make(size))
    red, green, blue = photograph(size)[:, int(0.55 * size), int(0.38 * size)]
    assert red > 2 * green and red > 2 * blue
    red, green, blue = drawing(size)[:, size // 3 :, size // 2 : int(0.7 * size)].mean((1, 2))
    assert blue > red + 0.1 and blue > green


def test_the_middle_square_is_read(tmp_path: Path) -> None:
    """What is left and right of it is cut off."""
    picture = Image.new("RGB", (90, 30), "blue")
    picture.paste("red", (30, 0, 60, 30))
    picture.save(tmp_path / "wide.png")
    read = open_picture(tmp_path / "wide.png", 16)
    assert read.shape == (3, 16, 16)
    assert read[0].min() > 0.99 and read[2].max() < 0.01


def test_what_is_no_picture_is_said(tmp_path: Path) -> None:
    """A file that is not there, and one that holds something else."""
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(RecipeError, match="no picture that Pillow can read"):
        open_picture(tmp_path / "text.png", 16)
    with pytest.raises(RecipeError, match="cannot read the picture"):
        open_picture(tmp_path / "gone.png", 16)

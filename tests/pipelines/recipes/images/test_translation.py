"""Translation by a prompt."""

from pathlib import Path

import pytest
from PIL import Image

from diffusion_xray.pipelines.recipes.images.translation import translation
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.shapes.world import coverage
from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.errors import RecipeError


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe with half of the steps."""
    lab = Lab(tmp_path_factory.mktemp("translation"), quiet=True)
    translation(lab, steps=10, start_step=6)
    return lab


def test_the_position_is_kept(lab: Lab) -> None:
    """The prompts name no place; from the middle it is the source's, from pure noise it is any."""
    assert lab["position of the source"] >= 80
    assert lab["position of the source, from pure noise"] <= 50


def test_colour_and_shape_are_the_prompts(lab: Lab) -> None:
    """In most pictures, and together with the position."""
    assert lab["colour and shape of the prompt"] >= 80
    assert lab["both"] >= 75


def test_the_words_look_at_the_old_thing(lab: Lab) -> None:
    """In the first step, with nothing new there yet, the word of the new shape looks where the source has its own."""
    trace = open_trace(lab.traces[0])
    assert trace.timestep.tolist() == [399, 299, 199, 99]
    attention = trace.attention("unet.up_blocks.0.attentions.0.transformer_blocks.0.attn2").sel(step=0)
    assert attention.sizes["batch"] == 24  # without a prompt, then with it: 3 prompts of 4 sources
    shape_words = attention.isel(batch=slice(12, 24), key=3).mean("head").values.reshape(3, 4, 8, 8)
    for maps in shape_words:
        for place, (x, y) in zip(maps, [(15, 32), (31, 15), (49, 31), (32, 48)], strict=True):
            inside = coverage("circle", x, y, 14.0).reshape(8, 8, 8, 8).mean((1, 3))
            assert (place * inside).sum() > 0.8 * place.sum()


def test_own_pictures(tmp_path: Path) -> None:
    """A picture and prompts of one's own, which nobody judges; what is lacking is said."""
    Image.new("RGB", (80, 60), "red").save(tmp_path / "red.png")
    lab = Lab(tmp_path / "out", quiet=True)
    translation(lab, picture=tmp_path / "red.png", prompt=("a red circle on white",), steps=4, start_step=2)
    assert [finding.name for finding in lab.findings] == ["distance to the source"]
    with pytest.raises(RecipeError, match="give --prompt"):
        translation(lab, picture=tmp_path / "red.png")
    with pytest.raises(RecipeError, match="start step 20 is no step of 20: give 0 to 19"):
        translation(lab, start_step=20)

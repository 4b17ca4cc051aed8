"""The decoder, given edited latents."""

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.components.edited_latents import edited_latents
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.shapes.judge import judge
from diffusion_xray.pipelines.shapes.world import Object, Scene
from diffusion_xray.tracer import Trace, open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run once."""
    lab = Lab(tmp_path_factory.mktemp("edited"), quiet=True)
    edited_latents(lab)
    return lab


@pytest.fixture(scope="module")
def trace(lab: Lab) -> Trace:
    """Its trace."""
    return open_trace(lab.traces[0])


def test_an_edited_region_changes_that_region(lab: Lab, trace: Trace) -> None:
    """Nearly all of the change lies in the quarter that was edited, as the recipe says and as the trace has it."""
    change = np.square(trace["records.change"]["output"].values[:, 0].astype(np.float64))
    for step, name in ((3, "quarter zero"), (4, "quarter pasted")):
        share = change[step, :, :32, 32:].sum() / change[step].sum()
        assert share > 0.95
        assert share == pytest.approx(lab[f"{name}: share of the change that is in the quarter"], rel=1e-4)


def test_moving_the_latent_moves_the_picture(lab: Lab) -> None:
    """Swapping halves and mirroring can be done before or after decoding."""
    assert lab["halves swapped before or after decoding: PSNR"] > 30
    assert lab["mirrored before or after decoding: PSNR"] > 30


def test_a_channel_changes_the_colours_everywhere(lab: Lab) -> None:
    """Where things are is told by no single channel, what colours they have is told by all."""
    assert lab["channel negative: share of pixels that change"] > 0.9


def test_the_pasted_object_is_there(trace: Trace) -> None:
    """A judge of pictures sees the star of the other picture above the square of this one, once the circle is cut."""
    images = trace.images
    assert images is not None and images.shape == (8, 64, 64, 3)
    pasted = (images[4] * 255).round().astype(np.uint8)
    pasted[:, :32] = 255
    star, square = Object("green", "star", "big", 0, 0, 0), Object("blue", "square", "", 0, 0, 0)
    assert judge(pasted, Scene((star, square), "above", "white")).everything

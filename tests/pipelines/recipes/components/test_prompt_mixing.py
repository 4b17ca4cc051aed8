"""Between two prompts."""

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.components.prompt_mixing import prompt_mixing
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.shapes.judge import judge
from diffusion_xray.pipelines.shapes.world import Object, Scene
from diffusion_xray.tracer import Trace, open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few ratios."""
    lab = Lab(tmp_path_factory.mktemp("mixing"), quiet=True)
    prompt_mixing(lab, ratios=5, steps=12)
    return lab


@pytest.fixture(scope="module")
def trace(lab: Lab) -> Trace:
    """Its trace."""
    return open_trace(lab.traces[0])


def test_the_ends_are_the_prompts(trace: Trace) -> None:
    """A judge of pictures finds what each prompt asks for at its end, and not at the other."""
    images = trace.images
    assert images is not None and images.shape == (5, 64, 64, 3)
    pictures = (images * 255).round().astype(np.uint8)
    circle = Scene((Object("red", "circle", "big", 0, 0, 0),), "left", "white")
    square = Scene((Object("blue", "square", "big", 0, 0, 0),), "right", "white")
    assert judge(pictures[0], circle).everything and judge(pictures[-1], square).everything
    assert not judge(pictures[0], square).colour and not judge(pictures[-1], circle).colour


def test_the_way_is_monotone_and_uneven(lab: Lab) -> None:
    """Each picture is nearer to the other end than the one before, and most of the way is made in one step."""
    assert lab["least step of the picture's place with the ratio"] > 0
    assert lab["largest step"] > 0.4  # where an even way has 0.25


def test_the_embeddings_are_mixed_evenly(trace: Trace) -> None:
    """The middle one is the mean of the ends; all start from one noise."""
    mixed = trace["records.mixed_embedding"]["output"].values
    assert mixed.shape == (5, 20, 64)
    np.testing.assert_allclose(mixed[2], (mixed[0] + mixed[4]) / 2, atol=1e-6)
    np.testing.assert_allclose(mixed[1], 0.75 * mixed[0] + 0.25 * mixed[4], atol=1e-6)
    noise = trace.steps["latents"].values[0]
    assert all((noise[0] == other).all() for other in noise[1:])

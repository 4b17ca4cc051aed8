"""Image to image from a start step."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.images.start_step import start_step
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.errors import RecipeError


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe as it is."""
    lab = Lab(tmp_path_factory.mktemp("start-step"), quiet=True)
    start_step(lab)
    return lab


def test_it_is_the_pipeline_of_diffusers(lab: Lab) -> None:
    """The latents agree with those of the image-to-image pipeline at the matching strength."""
    assert lab["largest difference to diffusers' latents"] < 1e-5


@pytest.mark.parametrize(("first", "steps"), [(0, 4), (1, 10), (9, 10), (3, 7)])
def test_so_it_is_at_every_start(first: int, steps: int, tmp_path: Path) -> None:
    """The first and the last step, shares that floats do not hold, and steps that do not divide the schedule."""
    lab = Lab(tmp_path, quiet=True)
    start_step(lab, start_step=first, steps=steps)
    assert lab["largest difference to diffusers' latents"] < 1e-5
    assert np.isfinite(open_trace(lab.traces[0]).timestep).sum() == steps - first


def test_the_trace_begins_at_the_start_step(lab: Lab) -> None:
    """The first latents are the encoded picture with the noise of that timestep: what is left over is normal."""
    trace = open_trace(lab.traces[0])
    first = int(np.flatnonzero(np.isfinite(trace.timestep))[0])
    assert first == 12 and trace.timestep[first] == 519
    alpha_bar = float(load_pipeline().scheduler.alphas_cumprod[519])
    noised, clean = trace.steps["latents"].sel(step=first).values, trace["records.encoded"]["output"].values
    noise = (noised - alpha_bar**0.5 * clean.reshape(noised.shape)) / (1 - alpha_bar) ** 0.5
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1


def test_a_step_that_is_not_there(tmp_path: Path) -> None:
    """One line says which there are."""
    with pytest.raises(RecipeError, match="start step 25 is no step of 25: give 0 to 24"):
        start_step(Lab(tmp_path, quiet=True), start_step=25)

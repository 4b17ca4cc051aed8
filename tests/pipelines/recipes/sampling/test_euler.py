"""Euler's method, written out."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.sampling.euler import euler
from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import open_trace

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few steps."""
    lab = Lab(tmp_path_factory.mktemp("euler"), quiet=True)
    euler(lab, steps=12)
    return lab


def test_it_is_the_loop_of_diffusers(lab: Lab) -> None:
    """The latents agree with those of the pipeline from the same noise."""
    assert lab["largest difference to diffusers' latents"] < 1e-3


def test_so_it_is_with_the_spacing_of_karras(tmp_path: Path) -> None:
    """Other noise levels are those of the scheduler too, and lie between its timesteps."""
    lab = Lab(tmp_path, quiet=True)
    euler(lab, steps=6, karras=True)
    assert lab["largest difference to diffusers' latents"] < 1e-3
    trace = open_trace(lab.traces[0])
    roots = trace.sigma ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots).mean(), rtol=1e-3)
    assert (trace.timestep % 1 != 0).any()


def test_the_trace_has_the_ode(lab: Lab) -> None:
    """Noise levels are those of the timesteps, the UNet is given unit variance, a step is straight."""
    trace = open_trace(lab.traces[0])
    alpha_bars = load_pipeline().scheduler.alphas_cumprod.numpy()[trace.timestep.astype(int)]
    np.testing.assert_allclose(trace.sigma, np.sqrt((1 - alpha_bars) / alpha_bars), rtol=1e-4)
    steps = trace.steps
    x, following, x0 = (steps[name].values for name in ("latents", "next_latents", "x0"))
    sigma = np.append(trace.sigma, 0).reshape(-1, 1, 1, 1, 1)
    share = sigma[1:] / sigma[:-1]
    np.testing.assert_allclose(following, x0 + share * (x - x0), atol=2e-3)
    given = trace["records.unet_input"]["std"].values
    assert (np.abs(given - 1) < 0.25).all() and x[0].std() > 100


def test_the_way_is_nearly_straight(lab: Lab) -> None:
    """Successive directions are much the same."""
    assert lab["cosine of successive directions, median"] > 0.9

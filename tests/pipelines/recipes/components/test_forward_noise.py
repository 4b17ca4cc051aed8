"""The forward process."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.components.forward_noise import forward_noise
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.errors import RecipeError

TIMESTEPS = (0, 100, 250, 500, 999)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run once."""
    lab = Lab(tmp_path_factory.mktemp("forward"), quiet=True)
    forward_noise(lab, timesteps=TIMESTEPS)
    return lab


def test_the_formula_is_that_of_the_scheduler(lab: Lab) -> None:
    """To the last bits."""
    assert lab["largest difference to add_noise"] < 1e-6


def test_what_is_measured_is_what_theory_says(lab: Lab) -> None:
    """Variance within two per cent, the signal-to-noise ratio within 1 dB of a range of more than 70."""
    assert lab["variance, largest relative error"] < 0.02
    assert lab["signal-to-noise ratio, largest error"] < 1
    ratios = [lab[f"signal-to-noise ratio at t = {t}"] for t in TIMESTEPS]
    assert ratios == sorted(ratios, reverse=True) and ratios[0] - ratios[-1] > 70


def test_the_trace_has_the_process(lab: Lab) -> None:
    """At each t, x_t is made of the same x0 and the same noise in the shares that the betas give."""
    trace = open_trace(lab.traces[0])
    assert trace.timestep.tolist() == list(TIMESTEPS)
    alpha_bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[list(TIMESTEPS)]
    np.testing.assert_allclose(trace.sigma, np.sqrt((1 - alpha_bars) / alpha_bars), rtol=1e-3)
    x_t, x0 = trace.steps["latents"].values, trace.steps["x0"].values
    noise = trace["records.noise"]["output"].values
    share = alpha_bars[:, None, None, None, None]
    np.testing.assert_allclose(x_t, np.sqrt(share) * x0 + np.sqrt(1 - share) * noise, atol=1e-4)
    assert (noise == noise[0]).all() and noise.std() == pytest.approx(1, abs=0.1)
    assert trace["records.decoded"]["output"].sizes["step"] == len(TIMESTEPS)


def test_a_timestep_that_training_has_not(tmp_path: Path) -> None:
    """It is refused in one line."""
    with pytest.raises(RecipeError, match="timestep 1000 is outside of the training schedule, 0 to 999"):
        forward_noise(Lab(tmp_path, quiet=True), timesteps=(1000,))

"""DDPM, written out."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.sampling.ddpm import ddpm
from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few steps."""
    lab = Lab(tmp_path_factory.mktemp("ddpm"), quiet=True)
    ddpm(lab, steps=20, pictures=3)
    return lab


def test_it_is_the_loop_of_diffusers(lab: Lab) -> None:
    """The latents agree with those of the pipeline from the same noise, with the same z."""
    assert lab["largest difference to diffusers' latents"] < 1e-4


@pytest.mark.long
def test_all_thousand_steps(tmp_path: Path) -> None:
    """Every step of the training schedule, as the paper has it; the trace then keeps no queries and keys."""
    lab = Lab(tmp_path, quiet=True)
    ddpm(lab, steps=1000, pictures=1)
    assert lab["largest difference to diffusers' latents"] < 1e-3
    trace = open_trace(lab.traces[0])
    assert trace.timestep.tolist() == list(range(999, -1, -1))


def test_a_step_is_drawn_from_the_posterior(lab: Lab) -> None:
    """A step draws from q(x_s | x_t, x0): its mean, and noise of its deviation."""
    trace = open_trace(lab.traces[0])
    alpha_bars = load_pipeline().scheduler.alphas_cumprod.numpy().astype(np.float64)[trace.timestep.astype(int)]
    after = np.append(alpha_bars[1:], 1.0)
    steps = trace.steps
    latents, following, x0 = (steps[name].values for name in ("latents", "next_latents", "x0"))
    z, mean = (trace[f"records.{name}"]["output"].values for name in ("z", "mean"))
    for step, (now, then) in enumerate(zip(alpha_bars, after, strict=True)):
        # The product of two Gaussians in x_s: sqrt(then) x0 ± (1 − then), and that x_t = sqrt(now / then) x_s ± noise.
        ratio = now / then
        given = max(1 - then, 1e-12)
        precision = 1 / given + ratio / (1 - ratio)
        middle = (np.sqrt(then) * x0[step] / given + np.sqrt(ratio) * latents[step] / (1 - ratio)) / precision
        np.testing.assert_allclose(mean[step], middle, atol=1e-4)
        np.testing.assert_allclose(following[step], middle + precision**-0.5 * z[step], atol=1e-4)
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02


def test_noise_makes_different_pictures(lab: Lab) -> None:
    """Pictures that start from the same noise part on the way."""
    assert lab["deviation of x0 between pictures, first step"] == 0
    assert lab["deviation of x0 between pictures, last step"] > 0.1
    trace = open_trace(lab.traces[0])
    assert trace.images is not None and trace.images.shape == (3, 64, 64, 3)
    assert trace.info.guidance == {"unet": {"batch": ["unconditional", "conditional"], "evidence": "embeddings"}}

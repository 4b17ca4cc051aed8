"""Blur, one step and many steps."""

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.sampling.denoising_compared import denoising_compared
from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import open_trace

NOISED = (250, 500, 750)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with longer strides."""
    lab = Lab(tmp_path_factory.mktemp("compared"), quiet=True)
    denoising_compared(lab, pictures=20, stride=25)
    return lab


@pytest.mark.parametrize("t", NOISED)
def test_one_step_is_nearest(lab: Lab, t: int) -> None:
    """The conditional mean beats blur and a sample in PSNR."""
    one = lab[f"PSNR at t = {t}, one step"]
    assert one > lab[f"PSNR at t = {t}, Gaussian blur"] + 1
    assert one > lab[f"PSNR at t = {t}, many steps"] + 0.5


def test_a_sample_is_off_by_twice_the_error(lab: Lab) -> None:
    """The squared error of a draw from the posterior is twice that of its mean; steps of 25 come close to a draw."""
    ratios = [lab[f"squared error of many steps over one, latents, t = {t}"] for t in NOISED]
    assert all(1.2 < ratio < 2.6 for ratio in ratios)
    assert 1.5 < sum(ratios) / 3 < 2.3


def test_more_noise_more_error(lab: Lab) -> None:
    """Each way gets worse with t."""
    for way in ("Gaussian blur", "one step", "many steps"):
        found = [lab[f"PSNR at t = {t}, {way}"] for t in NOISED]
        assert found == sorted(found, reverse=True), way


def test_a_sample_is_sharp(lab: Lab) -> None:
    """Many steps make edges nearly as steep as those of real pictures at every t; one step smears them, blur more."""
    for t in NOISED:
        assert lab[f"sharpness at t = {t}, many steps"] > 75
        assert lab[f"sharpness at t = {t}, Gaussian blur"] < lab[f"sharpness at t = {t}, one step"]
    assert lab["sharpness at t = 750, one step"] < 0.6 * lab["sharpness at t = 750, many steps"]


@pytest.mark.parametrize("t", NOISED)
def test_the_trace_has_the_noisy_latents(lab: Lab, t: int) -> None:
    """What is in the trace was noised to t, and the loop starts from it."""
    (path,) = (path for path in lab.traces if path.name == f"t{t}.zarr")
    trace = open_trace(path)
    clean, noisy = (trace.tensor(trace.site(f"records.{name}")) for name in ("clean", "noisy"))
    alpha_bar = float(load_pipeline().scheduler.alphas_cumprod[t])
    noise = (noisy - np.sqrt(alpha_bar) * clean) / np.sqrt(1 - alpha_bar)
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    np.testing.assert_array_equal(trace.steps["latents"].values[0], noisy)
    assert trace.timestep.tolist() == list(range(t, 0, -25))

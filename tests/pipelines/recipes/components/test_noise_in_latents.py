"""Noise in front of the encoder and behind it."""

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.components.noise_in_latents import noise_in_latents
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.tracer import open_trace

STRENGTHS = (0.2, 0.5, 1.0)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few strengths."""
    lab = Lab(tmp_path_factory.mktemp("noise"), quiet=True)
    noise_in_latents(lab, strengths=STRENGTHS, count=4)
    return lab


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_encoder_averages_noise_away(lab: Lab, strength: float) -> None:
    """Less than half of the noise in a picture arrives in its latent, and so the picture that comes out is better."""
    prefix = f"r = {strength:g} in the "
    assert lab[prefix + "picture: r that arrives in the latent"] < strength / 2
    assert lab[prefix + "picture: PSNR decoded"] > lab[prefix + "latent: PSNR decoded"] + 3


def test_noise_in_the_latent_comes_out_as_patches(lab: Lab) -> None:
    """Of white noise a sixteenth of the power is left in means of 4 × 4 pixels, of decoded noise most."""
    assert lab["share of the error in means of patches: noisy picture"] == pytest.approx(1 / 16, rel=0.1)
    assert lab["share of the error in means of patches: noise in the latent, decoded"] > 0.5


def test_both_noises_are_as_strong(lab: Lab) -> None:
    """In the trace, noise over signal is the strength of the step, in pictures as in latents."""
    trace = open_trace(lab.traces[0])
    assert trace.sigma.tolist() == pytest.approx(STRENGTHS)
    latents = trace.steps["latents"].values.astype(np.float64)
    pictures = trace["records.noisy_picture"]["output"].values.astype(np.float64)
    for values in (latents, pictures):
        clean = values[0] - (values[1] - values[0]) * STRENGTHS[0] / (STRENGTHS[1] - STRENGTHS[0])
        for noisy, strength in zip(values, STRENGTHS, strict=True):
            assert (noisy - clean).std() / clean.std() == pytest.approx(strength, rel=0.05)

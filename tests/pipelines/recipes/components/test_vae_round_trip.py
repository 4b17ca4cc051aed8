"""The autoencoder by itself."""

import numpy as np
import pytest
import torch

from diffusion_xray.pipelines.recipes.components.vae_round_trip import vae_round_trip
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run once."""
    lab = Lab(tmp_path_factory.mktemp("round_trip"), quiet=True)
    vae_round_trip(lab)
    return lab


def test_a_twelfth_of_the_numbers_gives_the_picture_back(lab: Lab) -> None:
    """The round trip is far better than a small picture of as many numbers."""
    assert lab["compression: numbers in a picture for each in its latent"] == 12
    assert lab["PSNR of the round trip"] > 35
    assert lab["PSNR of the round trip"] > lab["PSNR when shrunk to as many numbers instead"] + 6


def test_the_loss_is_at_outlines(lab: Lab) -> None:
    """Where the picture is flat, next to nothing is lost."""
    assert lab["error at outlines, times that elsewhere"] > 8


def test_the_channels_hold_colours(lab: Lab) -> None:
    """The colour of a place is nearly a linear function of the latent there, whose spread is that of noise."""
    assert lab["share of the colours that the channels explain linearly"] > 0.9
    assert lab["standard deviation of the latents"] == pytest.approx(1, abs=0.2)


def test_the_trace_has_what_went_in_and_came_out(lab: Lab) -> None:
    """PSNR computed from the trace alone is the one that was found, and the latent is the encoder's mean."""
    trace = open_trace(lab.traces[0])
    picture, rebuilt = (trace[f"records.{name}"]["output"].values[0] for name in ("picture", "rebuilt"))
    ratios = 10 * np.log10(1 / np.square(picture - rebuilt).mean(axis=(1, 2, 3)))
    assert float(ratios.mean()) == pytest.approx(lab["PSNR of the round trip"], abs=1e-3)
    latent = trace["records.latent"]["output"].values[0]
    assert latent.shape == (6, 4, 16, 16)
    vae = load_pipeline().vae
    with torch.no_grad():
        moments = vae.quant_conv(vae.encoder(2 * torch.from_numpy(picture) - 1)).numpy()
    np.testing.assert_allclose(latent, moments[:, :4] * vae.config.scaling_factor, rtol=1e-4, atol=1e-5)

"""A denoiser for one noise level, tried at others."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.training.denoise_digits import denoise_digits
from diffusion_xray.tracer import Trace, open_trace

SIGMAS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with less training."""
    lab = Lab(tmp_path_factory.mktemp("denoise"), quiet=True)
    denoise_digits(lab, steps=120, every=40)
    return lab


@pytest.fixture(scope="module")
def training(lab: Lab) -> Trace:
    """How it learned."""
    return open_trace(lab.folder / "training.zarr")


@pytest.fixture(scope="module")
def tried(lab: Lab) -> Trace:
    """What it does at other noise levels."""
    return open_trace(lab.folder / "sigmas.zarr")


def test_it_denoises_what_it_was_trained_for(lab: Lab) -> None:
    """At the σ of the training, digits held out come several decibels closer to clean, as by who is told σ."""
    noisy = 10 * math.log10(1 / 0.5**2)
    assert lab["PSNR at sigma 0.5"] > noisy + 7
    assert lab["behind a network told sigma 0.5"] < 0.2


def test_it_fails_at_other_levels(lab: Lab) -> None:
    """It falls behind a network that is told σ on either side of the σ of its training, the farther the more."""
    behind = [lab[f"behind a network told sigma {sigma:g}"] for sigma in SIGMAS]
    assert SIGMAS[int(np.argmin(behind))] in (0.4, 0.5, 0.6)
    assert (np.diff(behind[:3]) < 0).all() and (np.diff(behind[4:]) > 0).all()
    assert behind[0] > 3 and behind[1] > 0.5 and behind[-1] > behind[3] + 0.3


def test_what_was_tried_is_in_the_trace(lab: Lab, tried: Trace) -> None:
    """Steps are noise levels; the numbers found follow from the pictures recorded."""
    assert tried.sigma.tolist() == list(SIGMAS)
    noisy, denoised = (torch.tensor(tried[f"records.{name}"]["output"].values) for name in ("noisy", "denoised"))
    clean = noisy[0]
    spread = (noisy - clean).std(dim=(1, 2, 3, 4))
    assert spread.tolist() == pytest.approx(SIGMAS, abs=0.02)
    for sigma, picture in zip(SIGMAS, denoised, strict=True):
        found = -10 * math.log10(F.mse_loss(picture, clean))
        assert lab[f"PSNR at sigma {sigma:g}"] == pytest.approx(found, abs=0.01)


def test_the_trace_shows_it_learn(training: Trace) -> None:
    """Steps are training steps; the loss falls, and each layer has its gradient and its weights."""
    assert training.timestep.tolist() == [0, 40, 80, 119]
    loss = training["records.loss"]["output"].values
    assert loss[-1] < 0.4 * loss[0]
    clean, denoised = (training[f"records.{name}"]["output"].values for name in ("clean", "denoised"))
    np.testing.assert_allclose(((denoised - clean) ** 2).mean(axis=(1, 2, 3, 4)), loss, rtol=1e-4)
    for layer in ("enter.conv1", "down2.conv2", "flatten", "up1.norm", "out"):
        assert (training[f"records.gradient.{layer}"]["l2_norm"].values > 0).all()
        assert (training[f"records.weight.{layer}"]["std"].values[1:] > 0).all()


def test_figures(lab: Lab) -> None:
    """Digits over σ, and the curves."""
    assert [shown.file.name for shown in lab.figures] == ["out_of_distribution.png", "loss_and_psnr.png"]
    assert all(shown.caption and shown.file.is_file() for shown in lab.figures)

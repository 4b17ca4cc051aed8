"""DDPM with and without the noise it adds."""

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.sampling.stabilising_noise import stabilising_noise
from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Trace, open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with fewer steps and pictures."""
    lab = Lab(tmp_path_factory.mktemp("noise"), quiet=True)
    stabilising_noise(lab, steps=25, pictures=16)
    return lab


@pytest.fixture(scope="module")
def traces(lab: Lab) -> dict[str, Trace]:
    """Its two traces."""
    return {path.stem: open_trace(path) for path in lab.traces}


def test_with_noise_the_variance_is_that_of_training(traces: dict[str, Trace]) -> None:
    """With z the variance of x_t is ᾱ Var(x0) + 1 − ᾱ at every step; without, every picture's falls far below it."""
    alpha_bars = load_pipeline().scheduler.alphas_cumprod.numpy()[traces["with-z"].timestep.astype(int)]
    variances = {name: trace.steps["latents"].values.var((3, 4)).mean(2) for name, trace in traces.items()}
    final = traces["with-z"].steps["next_latents"].values[-1].var((2, 3)).mean()
    theory = alpha_bars * final + 1 - alpha_bars
    np.testing.assert_allclose(variances["with-z"].mean(1), theory, rtol=0.1)
    assert (variances["without-z"] / theory[:, None]).min(0).max() < 0.1
    assert (variances["without-z"][6:].mean(1) < 0.5 * theory[6:]).all()


def test_means_stop_wandering(lab: Lab) -> None:
    """The means of latents jitter from step to step with z, as noise does; without they go smoothly."""
    assert lab["wandering of the mean of x_t, without z"] < 0.3 * lab["wandering of the mean of x_t, with z"]


def test_pictures_go_flat(lab: Lab) -> None:
    """Without z most pictures show nothing but one colour; with z few do."""
    assert lab["pictures that are flat, without z"] >= 80
    assert lab["pictures that are flat, with z"] <= 20
    assert lab["variance of the final latents, without z"] < 0.3 * lab["variance of the final latents, with z"]


def test_both_runs_begin_alike(traces: dict[str, Trace]) -> None:
    """The only difference is z: the starting noise is the same."""
    first, second = (trace.steps["latents"].values[0] for trace in traces.values())
    np.testing.assert_array_equal(first, second)
    assert traces["with-z"]["records.variance"]["output"].shape == (25, 16)

"""The linear multistep method, written out."""

import numpy as np
import pytest
import torch

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.sampling.lms import coefficients, lms
from diffusion_xray.tracer import open_trace

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few steps."""
    lab = Lab(tmp_path_factory.mktemp("lms"), quiet=True)
    lms(lab, steps=12, compared=(12, 24), exact=80)
    return lab


def test_it_is_the_loop_of_diffusers(lab: Lab) -> None:
    """The latents agree with those of the pipeline from the same noise."""
    assert lab["largest difference to diffusers' latents"] < 1e-3


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_coefficients_integrate_polynomials(order: int) -> None:
    """A direction that is a polynomial of a lower degree is integrated exactly, however uneven the levels."""
    sigmas = torch.tensor([14.6, 9.1, 5.0, 2.2, 0.7, 0.0])
    step = 3
    for degree in range(order):
        directions = [float(sigmas[step - back]) ** degree for back in range(order)]
        stepped = sum(weight * d for weight, d in zip(coefficients(sigmas, step, order), directions, strict=True))
        exact = (float(sigmas[4]) ** (degree + 1) - float(sigmas[3]) ** (degree + 1)) / (degree + 1)
        assert stepped == pytest.approx(exact, rel=1e-5)


def test_the_trace_has_the_memory(lab: Lab) -> None:
    """Each step is the weighted sum of the last directions, whose weights add up to the step."""
    trace = open_trace(lab.traces[0])
    x, following = (trace.steps[name].values for name in ("latents", "next_latents"))
    directions = trace["records.derivative"]["output"].values
    weights = trace["records.coefficients"]["output"].values
    np.testing.assert_allclose(weights.sum(1), np.diff(np.append(trace.sigma, 0)), rtol=1e-4)
    assert [(row != 0).sum() for row in weights] == [1, 2, 3, *[4] * 9]
    for step in range(4, 12):
        back = sum(weights[step, j] * directions[step - j] for j in range(4))
        np.testing.assert_allclose(x[step] + back, following[step], atol=1e-3)


def test_memory_is_worth_steps(lab: Lab) -> None:
    """A higher order comes closer to the exact solution in the same number of steps."""
    for count in (12, 24):
        euler, *higher = (lab[f"error of order {order} in {count} steps"] for order in (1, 2, 3, 4))
        assert max(higher) < 0.85 * euler
    for order in (1, 2, 3, 4):
        assert lab[f"error of order {order} in 24 steps"] < 0.7 * lab[f"error of order {order} in 12 steps"]

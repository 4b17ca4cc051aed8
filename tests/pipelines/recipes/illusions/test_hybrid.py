"""The hybrid image."""

import numpy as np
import pytest
import torch

from diffusion_xray.pipelines.recipes.illusions.hybrid import hybrid, low_pass
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.tracer import open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few pictures and steps."""
    lab = Lab(tmp_path_factory.mktemp("hybrid"), quiet=True)
    hybrid(lab, pictures=3, steps=12)
    return lab


def test_it_is_one_thing_from_afar_and_another_from_near(lab: Lab) -> None:
    """Much noise leaves the far prompt, little noise the near one."""
    assert lab["the hybrid: share that reads as the far prompt from afar"] > 0.6
    assert lab["the hybrid: share that reads as the near prompt from near"] > 0.6


def test_pictures_of_one_prompt_are_not(lab: Lab) -> None:
    """A picture of either prompt alone stays that from any distance."""
    assert lab["the near prompt alone: share that reads as the far prompt from afar"] < 0.4
    assert lab["the far prompt alone: share that reads as the near prompt from near"] < 0.4


def test_each_step_joins_the_bands(lab: Lab) -> None:
    """x0 of the step has the low frequencies of the far answer and the high ones of the near answer."""
    trace = open_trace(lab.traces[0])
    far, near = (torch.from_numpy(trace[f"records.{name}"]["output"].values) for name in ("far", "near"))
    joined = low_pass(far, 1 / 16) + near - low_pass(near, 1 / 16)
    np.testing.assert_allclose(trace.steps["x0"].values, joined, atol=2e-5)


def test_the_blur_is_a_gaussian() -> None:
    """Away from the border a point becomes the normal distribution of the width asked for; a plane stays as it is."""
    point = torch.zeros(1, 41, 41)
    point[0, 20, 20] = 1
    distance = np.arange(41) - 20
    weights = np.exp(-(distance**2) / (2 * 3.0**2))
    weights /= weights.sum()
    np.testing.assert_allclose(low_pass(point, 3 / 41)[0], np.outer(weights, weights), atol=1e-5)
    plane = torch.full((1, 41, 41), 0.7)
    torch.testing.assert_close(low_pass(plane, 3 / 41), plane)


def test_figures_are_written(lab: Lab) -> None:
    """The pictures from three distances, and how they read."""
    assert [shown.file.name for shown in lab.figures] == ["views.png", "readings.png"]

"""Guidance from none to far too much."""

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.guidance.guidance_sweep import guidance_sweep
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.tracer import open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with fewer scales, pictures and steps."""
    lab = Lab(tmp_path_factory.mktemp("sweep"), quiet=True)
    guidance_sweep(lab, scales=(0.0, 1.0, 3.0, 15.0), pictures=10, steps=10)
    return lab


def test_adherence_rises(lab: Lab) -> None:
    """Nothing is right without the prompt, most with guidance; and far too much guidance costs again."""
    none, some, good, much = (lab[f"everything right at w = {scale}"] for scale in (0, 1, 3, 15))
    assert none < 10
    assert none < some <= good and good >= 75
    assert much < good


def test_latents_saturate(lab: Lab) -> None:
    """Latents grow with the scale, and colours with them."""
    sizes = [lab[f"deviation of the latents at w = {scale}"] for scale in (1, 3, 15)]
    assert sizes == sorted(sizes) and sizes[-1] > 1.1 * sizes[0]
    vivid = [lab[f"saturation of the colours at w = {scale}"] for scale in (1, 15)]
    assert vivid[1] > vivid[0]


def test_the_trace_has_the_scales_side_by_side(lab: Lab) -> None:
    """One picture of each scale, all from the same noise, going apart from the first step on."""
    trace = open_trace(lab.traces[0])
    latents = trace.steps["latents"].values
    assert latents.shape[:2] == (10, 4)
    np.testing.assert_array_equal(latents[0], np.broadcast_to(latents[0, :1], latents[0].shape))
    assert (np.abs(latents[1] - latents[1, :1]).mean((1, 2, 3))[1:] > 0).all()
    assert trace.images is not None and trace.images.shape == (4, 64, 64, 3)


def test_a_prompt_of_ones_own_is_not_judged(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where nobody knows what is right, only what can be measured is found."""
    lab = Lab(tmp_path_factory.mktemp("own"), quiet=True)
    guidance_sweep(lab, scales=(1.0, 8.0), prompt="a red star on gray", pictures=2, steps=2)
    names = [finding.name for finding in lab.findings]
    assert names and not any("right" in name for name in names)

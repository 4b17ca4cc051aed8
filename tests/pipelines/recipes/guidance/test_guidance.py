"""Classifier-free guidance, both branches."""

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.guidance.guidance import guidance
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.tracer import Trace, open_trace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few steps."""
    lab = Lab(tmp_path_factory.mktemp("guidance"), quiet=True)
    guidance(lab, steps=12)
    return lab


@pytest.fixture(scope="module")
def trace(lab: Lab) -> Trace:
    """Its trace."""
    return open_trace(lab.traces[0])


def test_both_branches_are_in_the_trace(trace: Trace) -> None:
    """The UNet's output has both halves, and guidance is made of them: u + w (c − u)."""
    assert trace.info.guidance == {"unet": {"batch": ["unconditional", "conditional"], "evidence": "embeddings"}}
    without, conditioned = (trace[f"records.{name}"]["output"].values for name in ("unconditional", "conditional"))
    seen = trace["unet.conv_out"]  # both in one batch
    np.testing.assert_allclose(seen["max"], np.maximum(without, conditioned).max((1, 2, 3, 4)), rtol=1e-6)
    np.testing.assert_allclose(seen["mean"], (without + conditioned).mean((1, 2, 3, 4)) / 2, atol=1e-5)
    np.testing.assert_array_equal(trace["records.difference"]["output"].values, conditioned - without)
    guided = trace.steps["model_output"].values
    np.testing.assert_allclose(guided, without + 3 * (conditioned - without), atol=1e-5)


def test_branches_expect_different_pictures(trace: Trace) -> None:
    """With the prompt, x0 is near the final picture from the middle on; without it is farther away."""
    final = trace.steps["next_latents"].values[-1]
    far = {
        branch: np.abs(trace[f"records.x0.{branch}"]["output"].values - final).mean((1, 2, 3, 4))
        for branch in ("unconditional", "conditional")
    }
    assert (far["conditional"][2:8] < far["unconditional"][2:8]).all()


def test_late_differences_are_on_the_objects(lab: Lab) -> None:
    """Once the background is settled the prompt changes the objects more than what surrounds them."""
    early, late = (
        lab[f"difference on objects over that on the background, {when}"] for when in ("first step", "second half")
    )
    assert late > 2 and late > early
    assert (
        lab["mean difference in the first half of the steps"] > lab["mean difference in the second half of the steps"]
    )

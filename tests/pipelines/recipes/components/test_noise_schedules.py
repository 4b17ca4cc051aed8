"""Noise levels of every scheduler."""

import diffusers
import numpy as np
import pytest
import torch

from diffusion_xray.pipelines.recipes.components.noise_schedules import noise_schedules
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.tracer import Trace, open_trace

pytestmark = [  # diffusers' own
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context"),
]
ALPHA_BARS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).numpy()
"""Of the embedded model, from the definition."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run with few steps."""
    lab = Lab(tmp_path_factory.mktemp("schedules"), quiet=True)
    noise_schedules(lab, steps=12)
    return lab


@pytest.fixture(scope="module")
def trace(lab: Lab) -> Trace:
    """Its trace."""
    return open_trace(lab.traces[0])


def course(trace: Trace, name: str, scheduler: str) -> np.ndarray:
    """A record of a scheduler along its steps."""
    values = trace[f"records.{name}.{scheduler}"]["output"].values[:, 0]
    return np.asarray(values[np.isfinite(values)])


def test_all_of_them_are_there(lab: Lab, trace: Trace) -> None:
    """Each scheduler of diffusers is either drawn, and in the trace, or left out."""
    every = [name for name in dir(diffusers) if name.endswith("Scheduler")]
    assert lab["schedulers"] + lab["left out"] == len(every)
    drawn = {name.removeprefix("records.sigma.") for name in trace.modules if name.startswith("records.sigma.")}
    known = "DDPM DDIM PNDM LMSDiscrete EulerDiscrete EulerAncestralDiscrete HeunDiscrete DPMSolverMultistep LCM TCD"
    more = "DPMSolverSinglestep KDPM2Discrete KDPM2AncestralDiscrete UniPCMultistep DEISMultistep"
    assert {*known.split(), *more.split(), "FlowMatchEulerDiscrete"} <= drawn
    assert len(drawn) == lab["schedulers"]
    (overview, schedulers) = lab.figures
    assert overview.file.exists() and "EDMEulerScheduler" in schedulers.caption
    assert "CogVideoXDDIM" in schedulers.caption.partition("Left out")[0]


def test_they_go_down(lab: Lab) -> None:
    """All but the two inverse ones, and RePaint that jumps back."""
    assert lab["never go down: inverse ones"] == 2
    assert lab["never go up"] == lab["schedulers"] - 3


def test_they_ask_on_the_curve_of_training(lab: Lab, trace: Trace) -> None:
    """σ² = (1 − ᾱ) / ᾱ, of the ᾱ that the definition gives at the timesteps that trailing spacing asks for."""
    timesteps = np.round(np.arange(1000, 0, -1000 / 12)).astype(int) - 1
    expected = ALPHA_BARS[timesteps]
    for name in ("DDIM", "DDPM", "EulerDiscrete", "LMSDiscrete", "DPMSolverMultistep", "UniPCMultistep"):
        np.testing.assert_allclose(course(trace, "alpha_bar", name), expected, rtol=2e-3)
        np.testing.assert_allclose(course(trace, "sigma", name) ** 2, (1 - expected) / expected, rtol=2e-3)
    assert lab["largest distance of these from it"] < 1e-3


def test_two_stages_ask_twice(trace: Trace) -> None:
    """Heun evaluates at each level but the first and the last twice; flow matching goes straight down from 1."""
    levels, times = np.unique(course(trace, "sigma", "HeunDiscrete").round(5), return_counts=True)
    assert len(levels) == 12 and times.tolist() == [2] * 11 + [1]
    flow = course(trace, "sigma", "FlowMatchEulerDiscrete")
    assert flow[0] == 1
    np.testing.assert_allclose(np.diff(flow), np.diff(flow)[0], rtol=1e-3)

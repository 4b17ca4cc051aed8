"""The predicted clean sample and the noise level, for every family of schedulers."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from diffusion_xray.tracer.schedule import noise_level, predict_x0

SIGMA_SPACE = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
)
VARIANCE_PRESERVING = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
)
pytestmark = [  # diffusers' own
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context"),
    pytest.mark.filterwarnings("ignore:The `scale_model_input` function should be called"),
]


def make(name: str, **config: Any) -> Any:
    """A scheduler set to ten steps."""
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(10)
    return scheduler


@pytest.mark.parametrize("name", SIGMA_SPACE + VARIANCE_PRESERVING)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_model_gives_back_the_clean_sample(name: str, prediction: str) -> None:
    """From the exact noise, velocity or sample, x0 is recovered at any step."""
    if (name, prediction) in {("PNDMScheduler", "sample"), ("KDPM2DiscreteScheduler", "sample")}:
        pytest.skip("diffusers does not have it")
    scheduler = make(name, prediction_type=prediction)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=generator).double()
    for timestep in scheduler.timesteps[[0, 4]]:
        level = noise_level(scheduler, timestep)
        assert level is not None
        sample = level.alpha * clean + level.scale * noise
        size = (level.alpha**2 + level.scale**2) ** 0.5
        output = {
            "epsilon": noise,
            # of the sample scaled to unit variance, which is what the model is shown
            "v_prediction": (level.alpha * noise - level.scale * clean) / size,
            "sample": clean,
        }[prediction]
        found = predict_x0(scheduler, level, output, sample)
        assert found is not None
        assert torch.allclose(found.double(), clean, atol=2e-4 * max(1.0, level.sigma))


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", *SIGMA_SPACE])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_schedulers_own_prediction_is_the_same(name: str, prediction: str) -> None:
    """Where a scheduler computes x0 itself, ours equals it at every one of its steps."""
    config = {} if name in SIGMA_SPACE else {"clip_sample": False}
    scheduler = make(name, prediction_type=prediction, **config)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 4, 8, 8, generator=generator) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        output = torch.randn(1, 4, 8, 8, generator=generator)
        level = noise_level(scheduler, timestep)
        assert level is not None
        found = predict_x0(scheduler, level, output, sample)
        result = scheduler.step(output, timestep, sample)
        own = getattr(result, "pred_original_sample", None)
        if own is not None:  # LMS and DDIM differ in when they give it
            assert found is not None
            assert torch.allclose(found, own, rtol=1e-3, atol=1e-3 * max(1.0, level.sigma))
        sample = result.prev_sample


@pytest.mark.parametrize("name", [*SIGMA_SPACE, "KDPM2AncestralDiscreteScheduler"])
def test_the_level_is_the_one_that_the_model_input_is_scaled_by(name: str) -> None:
    """At every step, both stages of two-stage solvers, σ is that of the scheduler's own 1 / sqrt(σ² + 1)."""
    scheduler = make(name)
    sample = torch.ones(1, 4, 2, 2)
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, timestep)
        level = noise_level(scheduler, timestep)
        assert level is not None
        assert float(scaled.mean() / sample.mean()) == pytest.approx((level.sigma**2 + 1) ** -0.5, rel=1e-5)
        scheduler.step(torch.zeros_like(sample), timestep, sample)


def test_an_inverse_scheduler_goes_up() -> None:
    """A scheduler that looks its steps up in another way has a level at the first of them, too."""
    scheduler = make("DPMSolverMultistepInverseScheduler")
    sigmas = []
    for timestep in scheduler.timesteps:
        level = noise_level(scheduler, timestep)
        assert level is not None
        sigmas.append(level.sigma)
        scheduler.step(torch.zeros(1, 4, 2, 2), timestep, torch.zeros(1, 4, 2, 2))
    assert sigmas == sorted(sigmas) and sigmas[0] == pytest.approx(float(scheduler.sigmas[0]))


def test_flow_matching_follows_the_straight_line() -> None:
    """With u = noise - clean, x0 lies at the end of the line through the sample."""
    scheduler = make("FlowMatchEulerDiscreteScheduler")
    clean, noise = torch.randn(2, 1, 16, 4, generator=torch.Generator().manual_seed(0))
    level = noise_level(scheduler, scheduler.timesteps[3])
    assert level is not None
    sample = (1 - level.sigma) * clean + level.sigma * noise
    found = predict_x0(scheduler, level, noise - clean, sample)
    assert found is not None
    assert torch.allclose(found, clean, atol=1e-5)


def test_learned_variance_is_cut_off() -> None:
    """A model output with twice the channels predicts noise in the first half."""
    scheduler = make("DDPMScheduler")
    level = noise_level(scheduler, scheduler.timesteps[0])
    assert level is not None
    found = predict_x0(scheduler, level, torch.zeros(1, 6, 4, 4), torch.ones(1, 3, 4, 4))
    assert found is not None
    assert found.shape == (1, 3, 4, 4)


def test_reading_the_level_changes_nothing() -> None:
    """Asking a scheduler where it stands leaves its state as it is."""
    scheduler = make("EulerDiscreteScheduler")
    before = {name: str(value) for name, value in vars(scheduler).items()}
    noise_level(scheduler, scheduler.timesteps[2])
    assert {name: str(value) for name, value in vars(scheduler).items()} == before


def test_an_unknown_schedule_is_no_error() -> None:
    """A scheduler without sigmas or alphas has no known noise level."""
    assert noise_level(object(), 5) is None

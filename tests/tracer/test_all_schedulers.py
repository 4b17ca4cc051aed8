"""Every scheduler of diffusers: the noise level recorded is the one by which the scheduler itself finds x0."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from diffusion_xray.tracer.schedule import noise_level, predict_x0
from diffusion_xray.tracer.taps.scheduler import given_x0

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own

SILENT = {  # predict x0 nowhere that one could see it, or work on tokens, or need more than numbers of steps
    "AmusedScheduler",
    "BlockRefinementScheduler",
    "CMStochasticIterativeScheduler",
    "ConsistencyDecoderScheduler",
    "DDPMWuerstchenScheduler",
    "DEISMultistepScheduler",
    "DiscreteDDIMScheduler",
    "EntropyBoundScheduler",
    "FlowMapEulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "IPNDMScheduler",
    "KarrasVeScheduler",
    "LTXEulerAncestralRFScheduler",
    "MiniMaxH3Scheduler",
    "PNDMScheduler",
    "PiflowScheduler",
    "RePaintScheduler",
    "RFD4ProteinaScheduler",
    "SASolverScheduler",
    "SCMScheduler",
    "SchedulerMixin",
    "ScoreSdeVeScheduler",
    "ScoreSdeVpScheduler",
    "TCDScheduler",
    "VQDiffusionScheduler",
}


def all_schedulers() -> list[str]:
    """Names of the schedulers that say what x0 they predict, without those whose packages are not here."""
    kinds = {name: getattr(diffusers.schedulers, name) for name in dir(diffusers.schedulers)}
    found = {name for name, kind in kinds.items() if inspect.isclass(kind) and issubclass(kind, SchedulerMixin)}
    return sorted(found - SILENT)


def listen(scheduler: Any) -> list[Tensor]:
    """What the scheduler's own conversion to x0 returns from now on, of solvers that predict x0."""
    found: list[Tensor] = []
    predicts_x0 = "++" in str(scheduler.config.get("algorithm_type", "")) or scheduler.config.get("predict_x0", False)
    original: Callable[..., Tensor] | None = getattr(scheduler, "convert_model_output", None)
    if original is not None and predicts_x0:

        def convert(*args: Any, **kwargs: Any) -> Tensor:
            found.append(original(*args, **kwargs))
            return found[-1]

        scheduler.convert_model_output = convert
    return found


def arguments(scheduler: Any, output: Tensor, timestep: Tensor, sample: Tensor) -> dict[str, Any]:
    """Those of a step, also of schedulers that need more than three."""
    more = {
        "old_pred_original_sample": None,
        "timestep_back": None,
        "original_image": torch.zeros_like(sample),
        "mask": torch.ones_like(sample),
    }
    wanted = inspect.signature(scheduler.step).parameters
    given = {"model_output": output, "timestep": timestep, "sample": sample}
    return given | {name: value for name, value in more.items() if name in wanted}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", all_schedulers())
def test_x0_is_what_the_scheduler_says(name: str, prediction: str) -> None:
    """At every step, from the level read before it, x0 is the scheduler's own to rounding."""
    kind = getattr(diffusers.schedulers, name)
    options = inspect.signature(kind.__init__).parameters
    if "prediction_type" not in options and prediction != "epsilon":
        pytest.skip("it knows one kind of prediction")
    given = {"prediction_type": prediction, "clip_sample": False}
    scheduler = kind(**{key: value for key, value in given.items() if key in options})
    scheduler.set_timesteps(6)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 4, 8, 8, generator=generator) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    said, compared = listen(scheduler), 0
    for timestep in scheduler.timesteps[:6]:
        scheduler.scale_model_input(sample, timestep)
        output = torch.randn(1, 4, 8, 8, generator=generator)
        level = noise_level(scheduler, timestep)
        assert level is not None
        found = predict_x0(scheduler, level, output, sample)
        try:
            result = scheduler.step(**arguments(scheduler, output, timestep, sample))
        except (ValueError, NotImplementedError):
            pytest.skip("it does not know this kind of prediction")
        own = given_x0(scheduler, result)
        own = said[-1] if own is None and said else own
        if own is not None:
            compared += 1
            assert found is not None
            assert float((found - own).abs().max() / own.abs().max()) < 1e-4
        sample = result[0] if isinstance(result, tuple) else result.prev_sample
    assert compared

"""How a scheduler is set: plain values only, and never without bound."""

from __future__ import annotations

import json
import math
from typing import ClassVar

import torch

from diffusion_xray.tracer.info import TraceInfo
from diffusion_xray.tracer.recording.settings import settings_of

from ..loops import ddim


class Odd:
    """A scheduler whose configuration holds what nobody wants in a trace."""

    config: ClassVar = {
        "rate": math.inf,
        "betas": [0.5] * 1000,
        "few": (1, 2.5, None),
        "net": torch.nn.Linear(1, 1),
        "text": "x" * 10_000,
        "_private": 1,
        **{f"key {index}": index for index in range(1000)},
    }


def test_the_configuration_of_a_scheduler_is_told() -> None:
    """Class and values, without what its library keeps for itself."""
    told = settings_of(ddim(prediction_type="v_prediction"))
    assert told["class"] == "DDIMScheduler"
    assert told["config"]["prediction_type"] == "v_prediction"
    assert not any(key.startswith("_") for key in told["config"])


def test_what_is_told_is_bounded_json() -> None:
    """Of what is no plain value, or too long, only what it is."""
    told = settings_of(Odd())
    text = json.dumps(told, allow_nan=False)
    assert len(text) < 5000
    assert told["config"]["rate"] == "inf"
    assert told["config"]["few"] == [1, 2.5, None]
    assert told["config"]["betas"] == "list of 1000"
    assert told["config"]["net"] == "Linear"
    assert "_private" not in told["config"]
    assert settings_of(object()) == {"class": "object", "config": {}}


def test_settings_that_are_none_are_read_as_none() -> None:
    """A trace is not to be trusted, and an older one has only the classes."""
    info = TraceInfo.from_attributes({"schedulers": {"scheduler": "DDIMScheduler"}})
    assert info.schedulers["scheduler"].kind == "DDIMScheduler"
    assert not info.schedulers["scheduler"].config
    wrong = {"scheduler_settings": {"a": 3, "b": {"config": [1]}}, "covers": {"unet": "x", "vae": [1]}}
    info = TraceInfo.from_attributes(wrong | {"latents_changed": [{"step": None}, 7]})
    assert list(info.schedulers) == ["b"] and not info.schedulers["b"].config
    assert info.covers == {"vae": ("1",)}
    assert info.latents_changed == ()

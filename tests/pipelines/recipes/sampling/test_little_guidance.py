"""Loops that are compared with diffusers, at a guidance that it does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.registry import load_recipe

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

OPTIONS: dict[str, dict[str, Any]] = {
    "cascade": {},
    "ddim": {"fewer": (1,)},
    "ddpm": {"pictures": 2},
    "euler": {},
    "lms": {"compared": (2,), "exact": 3},
    "start-step": {"start_step": 2},
}


@pytest.mark.parametrize("recipe", OPTIONS)
def test_guidance_below_one(recipe: str, tmp_path: Path) -> None:
    """Where diffusers would draw without guidance there is nothing to compare with, and no difference is found."""
    lab = Lab(tmp_path, quiet=True)
    load_recipe(recipe).function(lab, steps=4, guidance=0.5, **OPTIONS[recipe])
    assert lab.findings and not any("diffusers" in found.name for found in lab.findings)


@pytest.mark.parametrize("recipe", ["ddim", "euler"])
def test_guidance_of_one(recipe: str, tmp_path: Path) -> None:
    """At 1 guidance changes nothing, and the loop is that of diffusers without it."""
    lab = Lab(tmp_path, quiet=True)
    load_recipe(recipe).function(lab, steps=4, guidance=1.0, **OPTIONS[recipe])
    assert lab["largest difference to diffusers' latents"] < 1e-3

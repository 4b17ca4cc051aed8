"""What recipes refuse to be asked for."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusion_xray.pipelines.recipes.options import given
from diffusion_xray.pipelines.recipes.registry import list_recipes, load_recipe
from diffusion_xray.tracer.cli import main

HUGE = "99999999999999999999999"
AT_LEAST_ONE = ("steps", "pictures", "count", "frames", "repeats", "every", "stride", "draws", "batch", "ratios")
BY_NAME = {
    "steps": ("-1",),
    "seed": ("-1", HUGE),
    "strengths": ("nan",),
    "dropout": ("2", "-0.1"),
    "sigma": ("-1",),
    "tolerance": ("-1",),
    "strength": ("1.5",),
    "size": ("0", "-8"),
    "ratios": ("1",),
    "exact": ("0", "1001"),
    "compared": ("0",),
    "fewer": ("0", "5000"),
    "noised": ("0", "1000"),
    "noise_level": ("1000",),
    "stride": ("2000",),
    "start_step": ("-1",),
}
"""What these options refuse in every recipe that has one."""
BY_RECIPE = [
    ("ddim", "--steps", "1001"),
    ("ddpm", "--steps", "5000"),
    ("start-step", "--steps", "1001"),
    ("noise-schedules", "--steps", "3"),
    ("noise-schedules", "--steps", "51"),
    ("guidance", "--steps", "1"),
    ("euler", "--steps", "1"),
    ("train-class-conditional", "--timesteps", "0"),
    ("train-time-conditional", "--timesteps", "0"),
    ("forward-noise", "--timesteps", "1000"),
    ("text-to-image", "--words", ""),
    ("text-to-image", "--size", "65"),
    ("text-to-image", "--model", ""),
    ("cascade", "--model", "x", "--stage2", ""),
]


def bad() -> Iterator[tuple[str, ...]]:
    """A command line for each bad value of each option."""
    for listed in list_recipes():
        for name, parameter in inspect.signature(load_recipe(listed.name).function).parameters.items():
            values = list(BY_NAME.get(name, ()))
            values += ["0"] if name in AT_LEAST_ONE else []
            first = parameter.default[:1] if isinstance(parameter.default, tuple) else (parameter.default,)
            values += ["nan", "inf"] if any(isinstance(value, float) for value in first) else []
            yield from ((listed.name, f"--{name.replace('_', '-')}", value) for value in values)


@pytest.mark.parametrize("words", [*bad(), *BY_RECIPE], ids=" ".join)
def test_one_line(words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A value that no run can be made with ends with code 2 and one line that names it."""
    assert main(["run", words[0], "--out", str(tmp_path), *words[1:]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dxray: ")
    assert words[-1] in line
    assert not any(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("recipe", [listed.name for listed in list_recipes()])
def test_defaults_are_allowed(recipe: str) -> None:
    """No recipe refuses its own defaults."""
    function = load_recipe(recipe).function
    defaults = {name: it.default for name, it in inspect.signature(function).parameters.items()}
    assert given(argparse.Namespace(**defaults), function)

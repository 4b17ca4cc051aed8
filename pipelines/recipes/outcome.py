"""Run a recipe, and what is left of it."""

from __future__ import annotations

import argparse
import shlex
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_xray.tracer.errors import DxrayError, RecipeError

from .lab import Finding, Lab, Shown
from .loading import is_out_of_memory
from .options import given, written
from .registry import Recipe

__all__ = ["Outcome", "perform", "told"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a recipe has left."""

    recipe: str
    model: str | None
    seconds: float
    findings: tuple[Finding, ...]
    figures: tuple[Shown, ...]
    traces: tuple[Path, ...]
    command: str
    """What runs it again."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "recipe": self.recipe,
            "model": self.model,
            "seconds": round(self.seconds, 1),
            "findings": {finding.name: finding.value for finding in self.findings},
            "figures": [{"file": str(shown.file), "caption": shown.caption} for shown in self.figures],
            "traces": [str(path) for path in self.traces],
            "command": self.command,
        }


def perform(recipe: Recipe, options: argparse.Namespace) -> Outcome:
    """Run a recipe in a folder of its name, with the options of every recipe and its own.

    Raises:
        RecipeError: It cannot run as asked, or memory runs out; or it fails, with other options than its defaults.
    """
    lab = Lab(options.out / recipe.name, options.model, device=options.device, quiet=options.json)
    arguments = given(options, recipe.function)
    started = time.monotonic()
    try:
        recipe.function(lab, **arguments)
    except DxrayError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise RecipeError("memory ran out: try fewer steps, a smaller model, or --device cpu") from error
        if not (words := _words(recipe, options, arguments)):
            raise  # with its defaults a recipe runs: this is a mistake in it
        raise RecipeError(f"{recipe.name} cannot run with {shlex.join(words)}: {told(error)}") from error
    return Outcome(
        recipe=recipe.name,
        model=lab.model,
        seconds=time.monotonic() - started,
        findings=tuple(lab.findings),
        figures=tuple(lab.figures),
        traces=tuple(lab.traces),
        command=_command(recipe, options, arguments),
    )


def told(error: BaseException) -> str:
    """An error that nobody has words for, in one line: its kind, where it was raised, and the start of what it says."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    where = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
    return f"{where}: {said}" if said else where


def _command(recipe: Recipe, options: argparse.Namespace, arguments: Mapping[str, Any]) -> str:
    return shlex.join(["dxray", "run", recipe.name, *_words(recipe, options, arguments)])


def _words(recipe: Recipe, options: argparse.Namespace, arguments: Mapping[str, Any]) -> list[str]:
    """What was given beside the recipe's name, as far as it bears on what is found."""
    words = written(arguments, recipe.function)
    for name in ("model", "device"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name}", value]
    return words

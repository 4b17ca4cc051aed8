"""Run a recipe, and what is left of it."""

from __future__ import annotations

import argparse
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .lab import Finding, Lab, Shown
from .options import given
from .registry import Recipe

__all__ = ["Outcome", "perform"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a recipe has left."""

    recipe: str
    model: str | None
    seconds: float
    findings: tuple[Finding, ...]
    figures: tuple[Shown, ...]
    traces: tuple[Path, ...]

    @property
    def command(self) -> str:
        """What runs it again."""
        return f"dxray run {self.recipe}" + (f" --model {shlex.quote(self.model)}" if self.model else "")

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "recipe": self.recipe,
            "model": self.model,
            "seconds": round(self.seconds, 1),
            "findings": {finding.name: finding.value for finding in self.findings},
            "figures": [{"file": str(shown.file), "caption": shown.caption} for shown in self.figures],
            "traces": [str(path) for path in self.traces],
        }


def perform(recipe: Recipe, options: argparse.Namespace) -> Outcome:
    """Run a recipe in a folder of its name, with the options of every recipe and its own."""
    lab = Lab(options.out / recipe.name, options.model, device=options.device, quiet=options.json)
    started = time.monotonic()
    recipe.function(lab, **given(options, recipe.function))
    seconds = time.monotonic() - started
    return Outcome(recipe.name, lab.model, seconds, tuple(lab.findings), tuple(lab.figures), tuple(lab.traces))

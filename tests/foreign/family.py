"""A pipeline class that no other test runs, with what must be known of it to judge its trace."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

__all__ = ["FOREIGN", "NEGATIVE", "OTHER", "Foreign", "Sight", "foreign"]

NEGATIVE = "green on red"
"""The negative prompt of every family that takes one."""
OTHER = "a blue circle on red"
"""The prompt with which a family is called to see what depends on the prompt."""


@dataclass(frozen=True, slots=True)
class Sight:
    """An attention of image to text: which module, and where image and text stand in its sequences."""

    module: str
    grid: tuple[int, ...]
    """(height, width) or (frames, height, width) of the image's tokens."""
    image_at: int = 0
    """Where the image starts among the queries."""
    text_at: int = 0
    """Where the encoder's tokens start among the keys."""
    encoder: str = ""
    """The text encoder; "" for the only one."""
    also: Mapping[str, int] = field(default_factory=dict)
    """Further encoders whose tokens have positions of their own among the keys, and where they start."""
    word: str = "circle"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A pipeline, the arguments of one call without the generator, and what is known of both."""

    pipeline: Any
    call: dict[str, Any]
    denoisers: tuple[str, ...] = ("unet",)
    result: str = "images"
    """The field of the output that holds what was made; "" where it is the output itself."""
    condition: dict[str, Any] = field(default_factory=lambda: {"prompt": OTHER})
    """Another condition: what the first prediction depends on it in is conditional."""
    sight: Sight | None = None
    texts: tuple[str, ...] = ()
    """Of each part or call, where they are not the prompt where it is conditional, and else the negative one."""
    parts: int = 0
    """How many a batch has, where latents are stepped with all of them; 0: as often as it holds theirs."""
    listed: bool = False
    """Whether the denoiser takes and returns a list, a picture each, in place of a batch."""
    provable: bool = True
    """Whether the parts of guidance can be told; else it is enough that none is called what it is not."""
    seeded: bool = True
    """Whether the call takes a generator."""

    def run(self, **changes: Any) -> Any:
        """Call the pipeline with seed 0."""
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 — what diffusers draws from
        generator = {"generator": torch.Generator().manual_seed(0)} if self.seeded else {}
        output = self.pipeline(**self.call | changes, **generator)
        return getattr(output, self.result) if self.result else output


FOREIGN: dict[str, Callable[[], Foreign]] = {}
"""Builders by the name of the pipeline's class; every call builds anew, always with the same weights."""


def foreign(kind: type, variant: str = "") -> Callable[[Callable[[], Foreign]], Callable[[], Foreign]]:
    """Enter a builder in `FOREIGN` under its pipeline's class, with seeded weights and without dropout."""

    def enter(build: Callable[[], Foreign]) -> Callable[[], Foreign]:
        @functools.wraps(build)
        def seeded() -> Foreign:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                family = build()
            for component in family.pipeline.components.values():
                if isinstance(component, torch.nn.Module):
                    component.eval()
            if hasattr(family.pipeline, "set_progress_bar_config"):
                family.pipeline.set_progress_bar_config(disable=True)
            return family

        FOREIGN[f"{kind.__name__}{variant}"] = seeded
        return seeded

    return enter

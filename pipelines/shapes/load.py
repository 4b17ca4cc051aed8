"""Load the embedded model."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

__all__ = ["WEIGHTS", "load_pipeline"]

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the shipped weights, a pipeline saved by `save_pretrained` in half precision."""


def load_pipeline(folder: str | Path = WEIGHTS, *, dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """Load the embedded text-to-image model.

    Args:
        folder: Where the weights are; the shipped ones by default.
        dtype: Precision of the weights in memory. The shipped files hold float16; CPUs need float32.

    Returns:
        A `StableDiffusionPipeline` that draws 64x64 pictures of one or two coloured shapes. Its components are
        genuine, so image-to-image and inpainting pipelines can be built from them.
    """
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(leave=False)
    return pipeline

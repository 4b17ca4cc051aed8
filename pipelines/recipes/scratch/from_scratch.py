"""Stable Diffusion in plain PyTorch, beside that of diffusers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from torch import Tensor, nn

from diffusion_xray.pipelines.scratch.sampler import Settings, img2img, inpaint, txt2img
from diffusion_xray.pipelines.scratch.weights import load, module_map
from diffusion_xray.pipelines.shapes.load import WEIGHTS
from diffusion_xray.tracer.comparison.divergence import Comparison
from diffusion_xray.tracer.errors import RecipeError, near_matches
from diffusion_xray.tracer.trace import Trace

from ..figures import new_figure, picture_grid
from ..lab import Lab
from ..latent_diffusion import require_unet
from ..option_types import Between, Called, Steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["from_scratch"]

_FLOOR = 1e-9
"""Where a distance of zero is drawn."""


@torch.no_grad()
def from_scratch(
    lab: Lab,
    *,
    prompt: str = "a red circle left of a blue square on white",
    change: str = "a green star left of a blue square on white",
    steps: Steps = 12,
    guidance: float = 3.0,
    strength: Annotated[float, Between(0, 1)] = 0.8,
    seed: int = 0,
    mistake: Annotated[str, Called("MODULE")] = "unet.middle.attention.transformer.text_attention.value",
    tolerance: Annotated[float, Between(0)] = 1e-4,
) -> None:
    """Stable Diffusion in plain PyTorch, equal to that of diffusers.

    CLIP's text encoder, the VAE, the UNet and the loop are in pipelines/scratch, some 850 lines, to be read from
    blocks.py to sampler.py. Weights saved by diffusers are copied by a map of names, each exactly once.

      Rombach, Blattmann, Lorenz, Esser, Ommer 2022, High-Resolution Image Synthesis with Latent Diffusion Models;
      https://arxiv.org/abs/2112.10752

    A picture from words, one from a picture and one inpainted are drawn with it and with diffusers from the same noise.
    Both are traced; the map of names tells which layer is which, and no layer diverges:

      dxray diff scratch.zarr diffusers.zarr --map names.json --tolerance 1e-4

    Then one weight is made wrong by a per cent, and mistaken.zarr is drawn: the first layer that diverges is that one.
    So are the mistakes of a port found.

    Args:
        prompt: What to draw.
        change: What to make of it, image to image and inpainting its left half.
        steps: Denoising steps.
        guidance: Guidance scale.
        strength: Of image to image, the share of the steps that is done.
        seed: Of the noise.
        mistake: Module whose weight is made wrong.
        tolerance: Largest relative L2 distance of a tensor that is no divergence; float16 rounds by 1e-3.
    """
    pipe = require_unet(lab.pipeline())
    model = load(_folder(lab.model), pipe.tokenizer, device=pipe.device, dtype=pipe.unet.dtype)
    lab.found("weights copied", sum(weight.numel() for part in model.networks.values() for weight in part.parameters()))
    settings = Settings(steps=steps, guidance=guidance)
    wrong_weight = _weight(model.networks, mistake)

    with lab.trace(model.parts, "scratch", capture="blocks") as tracer:
        drawn = txt2img(model, prompt, lab.generator(seed), settings, tracer)
        mask = torch.zeros_like(drawn[:, :1])
        mask[..., : mask.shape[-1] // 2] = 1
        redrawn = img2img(model, change, lab.generator(seed), settings, tracer, picture=drawn, strength=strength)
        inpainted = inpaint(model, change, lab.generator(seed), settings, tracer, picture=drawn, mask=mask)
    ours = tracer.trace

    from_words, from_picture, from_part = _diffusers(lab)
    parts = {name: getattr(from_words, name) for name in (*model.parts, "scheduler")}
    common: Any = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "pt"}
    with lab.trace(parts, "diffusers", capture="blocks") as tracer:
        theirs = [
            from_words(prompt, generator=lab.generator(seed), **common).images,
            from_picture(change, drawn, strength=strength, generator=lab.generator(seed), **common).images,
            from_part(change, drawn, mask, strength=1.0, generator=lab.generator(seed), **common).images,
        ]
    reference = tracer.trace

    names = module_map(model.networks)
    (lab.folder / "names.json").write_text(json.dumps(names, indent=1), encoding="utf-8")
    right = _compare(ours, reference, names)
    lab.found("tensors compared", len(right.table))
    lab.found("largest distance of a tensor", np.nanmax(right.table.relative_l2))
    lab.found("tensors that diverge", right.table.is_over(tolerance).any(axis=1).sum())

    wrong_weight.mul_(1.01)
    with lab.trace(model.parts, "mistaken", capture="blocks") as tracer:
        txt2img(model, prompt, lab.generator(seed), settings, tracer)
    wrong = _compare(tracer.trace, reference, names)
    lab.found("tensors that diverge, one weight wrong", wrong.table.is_over(tolerance).any(axis=1).sum())

    noise = torch.randn(1, 3, model.latent_size, model.latent_size, generator=lab.generator(seed))
    given = [noise / 6 + 0.5, drawn, torch.where(mask > 0, 0.5, drawn)]
    drawings = {"txt2img": drawn, "img2img": redrawn, "inpaint": inpainted}
    apart = [(a - b).abs() for a, b in zip(drawings.values(), theirs, strict=True)]
    for name, difference in zip(drawings, apart, strict=True):
        lab.found(f"largest difference of the pictures, {name}", difference.max())
    largest = max(float(difference.max()) for difference in apart)
    brighter = min(0.1 / largest, 1e5) if largest else 1e5
    figure = picture_grid(
        [
            [start[0], a[0], b[0], brighter * difference[0]]
            for start, a, b, difference in zip(given, drawings.values(), theirs, apart, strict=True)
        ],
        row_titles=list(drawings),
        column_titles=["given", "from scratch", "diffusers", f"difference × {brighter:,.0f}"],
        side=1.5,
    )
    apart_by = f"differ by {largest:.1e} at most" if largest else "are equal to the bit"
    lab.figure(
        "pictures", figure, f"Drawn in plain PyTorch and by diffusers, from the same noise: the pictures {apart_by}."
    )
    lab.figure(
        "divergence",
        _distances(right, wrong, tolerance),
        "How far each tensor of the first step is from that of diffusers. With one weight wrong by one per cent nearly "
        "all are some way off, from that layer on: the first above the tolerance is where the mistake is.",
    )


def _folder(model: str | None) -> Path:
    """Where the files of a pipeline are."""
    if model is None:
        return WEIGHTS
    return Path(model) if Path(model).is_dir() else Path(DiffusionPipeline.download(model))


def _diffusers(lab: Lab) -> list[Any]:
    """The three pipelines, of the same parts and with one scheduler, whose pictures nobody censors."""
    kinds = (StableDiffusionPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline)
    pipes = [lab.pipeline(kind) for kind in kinds]
    scheduler = DDIMScheduler.from_config(pipes[0].scheduler.config, clip_sample=False)
    for pipe in pipes:
        pipe.scheduler = scheduler
        pipe.safety_checker = None
    return pipes


def _weight(networks: Mapping[str, nn.Module], module: str) -> Tensor:
    """The weight of a module that is named as in a trace."""
    weights = {f"{part}.{name}": weight for part in networks for name, weight in networks[part].named_parameters()}
    if f"{module}.weight" not in weights:
        raise RecipeError(f"no module {module!r} has a weight.{near_matches(f'{module}.weight', weights)}")
    return weights[f"{module}.weight"]


def _compare(a: Trace, b: Trace, names: Mapping[str, str]) -> Comparison:
    comparison = Comparison(a, b, names)
    for _ in comparison.run():
        pass
    return comparison


def _distances(right: Comparison, wrong: Comparison, tolerance: float) -> Figure:
    """How far every tensor of the first step is from that of diffusers, in the order in which they came to be."""
    figure, axes = new_figure(size=(7.5, 3.4))
    axis = axes[0, 0]
    rows = np.flatnonzero(wrong.table.stepped)
    for comparison, label in ((right, "from scratch"), (wrong, "the same, one weight wrong by 1 %")):
        distances = np.nan_to_num(comparison.table.relative_l2[rows, 0])
        axis.plot(np.maximum(distances, _FLOOR), ".", markersize=5, label=label)
    first = wrong.table.first_over(tolerance)
    if first is not None and first.row in rows:
        place = int(np.flatnonzero(rows == first.row)[0])
        axis.annotate(
            first.pair.a.name,
            (place, first.distance.relative_l2),
            xytext=(0, 26),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            arrowprops={"arrowstyle": "->", "color": "#57606a"},
        )
    axis.axhline(tolerance, color="#8c959f", linestyle="--", linewidth=1, label="tolerance")
    axis.set_yscale("log")
    axis.set_ylim(_FLOOR / 2, 1)
    axis.set_yticks([_FLOOR, 1e-7, 1e-5, 1e-3, 1e-1], ["0", "1e-7", "1e-5", "1e-3", "1e-1"])
    axis.set(xlabel="tensors of the UNet, in the order in which they come to be", ylabel="relative L2 distance")
    axis.legend(fontsize=8, loc=(0.01, 0.13))
    return figure

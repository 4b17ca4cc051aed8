"""Classifier-free guidance from none to far too much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from diffusion_xray.pipelines.shapes.judge import judge
from diffusion_xray.pipelines.shapes.quality import held_out_scenes

from ..figures import curves, new_figure, picture_grid, pixels
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, predict, require_unet, starting_noise
from ..option_types import Count, Steps

__all__ = ["guidance_sweep"]

_PHOTO = "a photograph of an astronaut riding a horse"
_ROWS = 4
_ASPECTS = {"background": "background", "colour": "colours", "shape": "shapes", "placement": "places"}
"""What a judge looks at, and what it is called in the plural."""


@torch.no_grad()
def guidance_sweep(
    lab: Lab,
    *,
    scales: tuple[float, ...] = (0.0, 1.0, 1.5, 3.0, 5.0, 8.0, 15.0),
    prompt: str | None = None,
    pictures: Count = 16,
    steps: Steps = 16,
    seed: int = 0,
) -> None:
    """Guidance scale from 0 to 15: adherence first, saturation in the end.

      ε = u + w (c − u)

      Ho, Salimans 2022, Classifier-Free Diffusion Guidance; https://arxiv.org/abs/2207.12598

    w = 0 does not know the prompt, w = 1 is the conditional model, and beyond that the prompt is followed more closely
    than the data does. The price: x0 leaves the range of the data, colours burn out and shapes break. Saharia et al.
    2022 (Imagen, section 2.3; https://arxiv.org/abs/2205.11487) clip it for that, Lin et al. 2023 (section 3.4;
    https://arxiv.org/abs/2305.08891) rescale it.

    All scales start from the same noise and go through the UNet as one batch, so the pictures of the trace, which is of
    the first caption, are the scales in order: compare the latents and x0 of the batch's entries. On the embedded model
    the captions are ones it never saw, and a judge reads off the pixels whether a picture shows what its caption says.

    Args:
        scales: Guidance scales.
        prompt: What to draw; captions of the embedded model's world by default, else an astronaut.
        pictures: How many of each scale.
        steps: Denoising steps.
        seed: Of the noise of the first picture.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    half = pictures // 2
    scenes = []
    if lab.model is None and prompt is None:
        by_count = held_out_scenes(pictures - half, objects=1), held_out_scenes(half, objects=2)
        scenes = [scene for pair in zip(*by_count, strict=False) for scene in pair] + by_count[0][half:]
    captions = [scene.caption() for scene in scenes] or [prompt or _PHOTO] * pictures
    noise = [starting_noise(pipe, 1, lab.generator(seed + number)) for number in range(pictures)]

    with lab.trace(pipe, capture="statistics") as tracer:
        latents = [_sample(pipe, noise[0], captions[0], scales, steps)]
        tracer.record_images(decode(pipe, latents[0]))
    others = list(zip(noise, captions, strict=True))[1:]
    latents += [_sample(pipe, *other, scales, steps) for other in lab.progress(others, "guidance-sweep")]

    drawn = [decode(pipe, found) for found in latents]  # of each caption, all scales
    size = torch.stack([found.float().std((1, 2, 3)) for found in latents]).mean(0).cpu()
    vivid = torch.stack([_saturation(found) for found in drawn]).mean(0)
    measured = {"deviation of the latents": size, "saturation of the colours": vivid}
    judged: dict[str, list[float]] = {}
    if scenes:
        verdicts = [
            [judge(pixels(picture), scene) for picture in found] for found, scene in zip(drawn, scenes, strict=True)
        ]
        for aspect in ("everything", *_ASPECTS):
            right = [[getattr(verdict, aspect) for verdict in row] for row in verdicts]
            judged[_ASPECTS.get(aspect, aspect)] = [100 * sum(column) / pictures for column in zip(*right, strict=True)]
    for place, scale in enumerate(scales):
        if scenes:
            lab.found(f"everything right at w = {scale:g}", judged["everything"][place], "%")
        for name, values in measured.items():
            lab.found(f"{name} at w = {scale:g}", float(values[place]))

    rows = captions[: min(_ROWS, pictures)]
    figure = picture_grid(
        [list(found) for found in drawn[: len(rows)]],
        row_titles=[_broken(caption) for caption in rows],
        column_titles=[f"w = {scale:g}" for scale in scales],
    )
    lab.figure("pictures", figure, "One noise a row, guided by w: nothing asked, the prompt followed, then burnt out.")
    figure, axes = new_figure(1, 2 if scenes else 1, size=(9.0 if scenes else 4.8, 3.3))
    if scenes:
        lines = {name: (range(len(scales)), values) for name, values in judged.items()}
        curves(lines, x_label="guidance scale w", y_label="pictures that are right, %", axes=axes[0, 0])
        axes[0, 0].get_lines()[0].set_linewidth(3)
    relative = {name: (range(len(scales)), values / values[_nearest(scales, 1.0)]) for name, values in measured.items()}
    curves(relative, x_label="guidance scale w", y_label="relative to w = 1", axes=axes[0, -1])
    for axis in axes.flat:
        axis.set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales])
    lab.figure(
        "sweep",
        figure,
        (f"Left: what the judge finds right in {pictures} pictures of unseen captions. " if scenes else "")
        + f"{'Right: w' if scenes else 'W'}hat it costs: latents and colours beyond what the model was trained on.",
    )


def _sample(pipe: Any, noise: Tensor, caption: str, scales: Sequence[float], steps: int) -> Tensor:
    """DDIM from one noise, each entry of the batch with its own guidance scale."""
    latents = noise.repeat(len(scales), 1, 1, 1)
    condition, unconditional = (encode_prompts(pipe, [text] * len(scales)) for text in (caption, ""))
    w = torch.tensor(scales).view(-1, 1, 1, 1).to(latents)
    pipe.scheduler.set_timesteps(steps)
    for t in pipe.scheduler.timesteps:
        prediction = predict(pipe, latents, t, condition, unconditional=unconditional, guidance=w)
        latents = pipe.scheduler.step(prediction, t, latents).prev_sample
    return latents


def _saturation(pictures: Tensor) -> Tensor:
    """Mean over the pixels of each picture of how far a colour is from gray, the largest channel less the smallest."""
    return (pictures.amax(1) - pictures.amin(1)).mean((1, 2))


def _nearest(scales: Sequence[float], wanted: float) -> int:
    return min(range(len(scales)), key=lambda place: abs(scales[place] - wanted))


def _broken(caption: str) -> str:
    """A caption on several lines."""
    words, lines = caption.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 16:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)

"""DeepFloyd IF: two diffusions over pixels, the second from the picture of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn import functional

from diffusion_xray.tracer import Trace, Tracer
from diffusion_xray.tracer.capture import Capture
from diffusion_xray.tracer.errors import RecipeError

from ..figures import new_figure, picture_grid
from ..lab import Lab
from ..models import open_model
from ..option_types import Called, Steps, Timestep
from .random_floyd import random_floyd

__all__ = ["cascade"]

Film = list[tuple[Tensor, Tensor]]
"""x_t and x0 of every step."""

_CAPTURE = Capture(
    modules=("*.down_blocks.*", "*.mid_block", "*.up_blocks.*", "unet_2.class_embedding", "text_encoder.**.block.*"),
    attention="**.attentions.*",
    latents=False,  # they grow in between; each stage records its own
)


@torch.no_grad()
def cascade(
    lab: Lab,
    *,
    prompt: str = "a red circle on white",
    stage2: Annotated[str, Called("ID")] | None = None,
    steps: Steps = 12,
    guidance: float = 4.0,
    noise_level: Timestep = 250,
    seed: int = 0,
) -> None:
    """Cascade: DeepFloyd IF's two stages and its T5, in one trace.

    The first UNet denoises a small picture from nothing but noise. The second denoises a large one, and beside it in
    its input lies the small picture, enlarged and noised up to a level s, which the UNet is told like a timestep:

      x̃ = sqrt(ᾱ_s) up(x) + sqrt(1 − ᾱ_s) ε        ε̂ = UNet₂([x_t, x̃], t, text, s)

      Ho et al. 2021, Cascaded Diffusion Models for High Fidelity Image Generation, section 4.2;
      https://arxiv.org/abs/2106.15282
      Saharia et al. 2022, Photorealistic Text-to-Image Diffusion Models (Imagen), section 2.3;
      https://arxiv.org/abs/2205.11487

    That noise hides the small picture's own mistakes, so that the second stage makes details of its own. The text is
    encoded once, for both. The loop is written out once, too: stage 2 is stage 1 with three more channels and a label.

    Weights are random where no --model is given: the pictures are texture then, while shapes, steps and the flow of
    data are those of the architecture. The real ones are --model DeepFloyd/IF-I-XL-v1.0 --stage2 DeepFloyd/IF-II-L-v1.0
    (accept their licence on the hub). In the trace look at unet_1 and unet_2, each captured in its own steps only, at
    records.stage_2.noised, and at unet_2.class_embedding, which is what the noise level becomes.

    Args:
        prompt: What to draw.
        stage2: Hub id or folder of the second stage; --model is the first.
        steps: Denoising steps of each stage.
        guidance: Guidance scale of both; compared with diffusers from 1 on, below which it has none.
        noise_level: Timestep s up to which the small picture is noised.
        seed: Of all noise.
    """
    first, second = _stages(lab, stage2)
    known = second.image_noising_scheduler.config.num_train_timesteps
    if not 0 <= noise_level < known:
        raise RecipeError(f"--noise-level {noise_level}: stage 2 knows levels from 0 to {known - 1}")
    for pipe in (first, second):
        pipe.scheduler.set_timesteps(steps)
    parts = {
        "text_encoder": first.text_encoder,
        "tokenizer": first.tokenizer,
        "unet_1": first.unet,
        "unet_2": second.unet,
        "scheduler_1": first.scheduler,
        "scheduler_2": second.scheduler,
    }
    random = lab.generator(seed)

    with lab.trace(parts, capture=_CAPTURE) as tracer:
        text, no_text = first.encode_prompt(prompt)
        both = torch.cat([no_text, text])
        small, film_1 = _denoise(lab, tracer, first, "stage_1", both, guidance=guidance, random=random)

        start = _noise(second, random)
        enlarged = functional.interpolate(small, start.shape[-2:], mode="bilinear", align_corners=True)
        level = torch.tensor([noise_level], device=enlarged.device)
        noise = randn_tensor(enlarged.shape, random, enlarged.device, enlarged.dtype)
        noised = second.image_noising_scheduler.add_noise(enlarged, noise, level)
        tracer.step(steps)
        tracer.record("stage_2.small_picture", small)
        tracer.record("stage_2.noised", noised)
        large, film_2 = _denoise(
            lab,
            tracer,
            second,
            "stage_2",
            both,
            guidance=guidance,
            random=random,
            start=start,
            beside=noised,
            level=level,
        )
        tracer.record_images(_shown(large))

    if guidance >= 1:  # below, diffusers draws without guidance
        told = {"prompt_embeds": text, "negative_prompt_embeds": no_text, "output_type": "pt"}
        told |= {"num_inference_steps": steps, "guidance_scale": guidance, "generator": lab.generator(seed)}
        theirs_1 = first(**told).images
        theirs_2 = second(**told, image=theirs_1, noise_level=noise_level).images
        lab.found("largest difference to diffusers' stage 1", float((small - theirs_1).abs().max()))
        lab.found("largest difference to diffusers' stage 2", float((large - theirs_2).abs().max()))
    signal = second.image_noising_scheduler.alphas_cumprod.sqrt()
    lab.found("signal left in what stage 2 is given", 100 * float(signal[noise_level]), "%")
    other = 0 if noise_level > len(signal) // 2 else len(signal) - 1
    told_otherwise = _told_otherwise(second, torch.cat([start, noised], dim=1), text, level, other)
    lab.found(f"change of stage 2's prediction when told level {other}", 100 * told_otherwise, "%")
    lab.found("side of stage 1's picture", small.shape[-1], "px")
    lab.found("side of stage 2's picture", large.shape[-1], "px")

    honest = "" if lab.model else " Random weights: this is texture, and shows the flow of data."
    results = (small, enlarged, noised, large)
    lab.figure("stages", _both_films(film_1, film_2, results), _CAPTION + honest)
    lab.figure(
        "noise_levels",
        _noise_levels(second, enlarged, noise, sorted({0, 125, 250, 500, 750, noise_level})),
        "What stage 2 may be given of stage 1's picture: coarse structure outlasts detail, and the more noise there "
        "is, the more stage 2 has to invent.",
    )
    lab.figure(
        "statistics",
        _statistics(tracer.trace, steps),
        "Standard deviations over the steps of the trace: both stages lie one after the other in it, each with a UNet "
        "that was called in its own half only.",
    )


_CAPTION = (
    "Each stage goes from noise, x_t, to a picture, by way of the one it expects, x0. Stage 1's is enlarged, noised, "
    "and laid beside stage 2's x_t in every step (last column, from above)."
)


def _denoise(
    lab: Lab,
    tracer: Tracer,
    pipe: Any,
    stage: str,
    text: Tensor,
    *,
    guidance: float,
    random: torch.Generator,
    start: Tensor | None = None,
    beside: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Film]:
    """One stage: DDPM with guidance and learned variance; the picture in [−1, 1], and x_t and x0 of every step."""
    x: Tensor = _noise(pipe, random) if start is None else start
    film: Film = []
    timesteps = pipe.scheduler.timesteps
    before = 0 if beside is None else len(timesteps)
    for step, t in enumerate(lab.progress(timesteps, stage)):
        tracer.step(before + step, timestep=t)
        given = x if beside is None else torch.cat([x, beside], dim=1)
        label = None if level is None else torch.cat([level, level])
        output = pipe.unet(torch.cat([given, given]), t, encoder_hidden_states=text, class_labels=label).sample
        without, conditioned = output.chunk(2)
        (without, _), (conditioned, variance) = without.split(3, dim=1), conditioned.split(3, dim=1)
        predicted = without + guidance * (conditioned - without)
        following = pipe.scheduler.step(torch.cat([predicted, variance], dim=1), t, x, generator=random)
        tracer.record(f"{stage}.x_t", x)
        tracer.record(f"{stage}.x0", following.pred_original_sample)
        tracer.record(f"{stage}.predicted_noise", predicted)
        film.append((x, following.pred_original_sample))
        x = following.prev_sample
    return x, film


def _told_otherwise(pipe: Any, given: Tensor, text: Tensor, level: Tensor, other: int) -> float:
    """How much of the first prediction, relative to its length, hangs on the noise level that the UNet is told."""
    labels = (level, torch.full_like(level, other))
    first, second = (
        pipe.unet(given, pipe.scheduler.timesteps[0], encoder_hidden_states=text, class_labels=label).sample[:, :3]
        for label in labels
    )
    return float((second - first).norm() / first.norm())


def _noise(pipe: Any, random: torch.Generator) -> Tensor:
    size = pipe.unet.config.sample_size
    noise: Tensor = randn_tensor((1, 3, size, size), random, pipe.unet.device, pipe.unet.dtype)
    return noise


def _stages(lab: Lab, stage2: str | None) -> tuple[Any, Any]:
    """Both pipelines: the real ones, or the small ones with random weights.

    Raises:
        RecipeError: One stage only was named, or one is no stage of DeepFloyd IF.
    """
    if lab.model is None and stage2 is None:
        first, second = random_floyd()
        return first.to(lab.device or "cpu"), second.to(lab.device or "cpu")
    if lab.model is None or stage2 is None:
        raise RecipeError("a cascade needs both: --model DeepFloyd/IF-I-XL-v1.0 --stage2 DeepFloyd/IF-II-L-v1.0")
    first = lab.pipeline()
    second = open_model(stage2, device=lab.device, without=("text_encoder",)).pipeline(quiet=lab.quiet)
    for option, name, pipe, channels in (("--model", lab.model, first, 3), ("--stage2", stage2, second, 6)):
        unet = getattr(pipe, "unet", None)
        if not type(pipe).__name__.startswith("IF") or unet is None or unet.config.in_channels != channels:
            raise RecipeError(
                f"{option} {name!r} is a {type(pipe).__name__}, which is not this stage of DeepFloyd IF: "
                "give DeepFloyd/IF-I-XL-v1.0 and DeepFloyd/IF-II-L-v1.0, or smaller ones of the same kind"
            )
    return first, second


def _shown(pictures: Tensor) -> Tensor:
    """From [−1, 1] to [0, 1], on the CPU."""
    return (pictures / 2 + 0.5).clamp(0, 1).float().cpu()


def _both_films(film_1: Film, film_2: Film, results: Sequence[Tensor]) -> Any:
    at = np.linspace(0, len(film_1) - 1, min(len(film_1), 6)).round().astype(int).tolist()
    rows = [[_shown(film[step][which])[0] for step in at] for film in (film_1, film_2) for which in (0, 1)]
    titles = ("picture of stage 1", "enlarged", "noised, for stage 2", "picture of stage 2")
    figure = picture_grid(
        [[*row, _shown(result)[0]] for row, result in zip(rows, results, strict=True)],
        row_titles=["stage 1\nx_t", "stage 1\nx0", "stage 2\nx_t", "stage 2\nx0"],
        column_titles=[f"step {step}" for step in at],
        side=1.3,
    )
    for row, title in enumerate(titles):
        figure.axes[(row + 1) * (len(at) + 1) - 1].set_title(title, fontsize=8)
    return figure


def _noise_levels(pipe: Any, enlarged: Tensor, noise: Tensor, levels: Sequence[int]) -> Any:
    scheduler = pipe.image_noising_scheduler
    at = torch.tensor(levels, device=enlarged.device)
    given = scheduler.add_noise(enlarged.expand(len(levels), -1, -1, -1), noise, at)
    shares = scheduler.alphas_cumprod[list(levels)].sqrt().tolist()
    titles = [f"level {level}\nsignal {share:.0%}" for level, share in zip(levels, shares, strict=True)]
    return picture_grid([list(_shown(given))], column_titles=titles, side=1.5)


def _statistics(trace: Trace, steps: int) -> Any:
    figure, axes = new_figure(1, 2, size=(9.2, 3.2))
    for axis, title, names in (
        (axes[0, 0], "the picture x_t and the expected one, x0", ("x_t", "x0")),
        (axes[0, 1], "the predicted noise, after guidance", ("predicted_noise",)),
    ):
        for stage, colour in ((1, "#0969da"), (2, "#cf222e")):
            for name, line in zip(names, ("o-", "o--"), strict=False):
                deviations = trace[f"records.stage_{stage}.{name}"]["std"].values
                label = name if stage == 1 else None
                axis.plot(deviations, line, color=colour, markersize=3, linewidth=1.4, label=label)
            middle = (stage - 0.5) * steps - 0.5
            axis.text(
                middle,
                0.97,
                f"stage {stage}",
                transform=axis.get_xaxis_transform(),
                color=colour,
                ha="center",
                va="top",
            )
        axis.axvline(steps - 0.5, color="#8c959f", linewidth=0.8)
        axis.margins(y=0.16)
        axis.set(xlabel="step of the trace", ylabel="standard deviation", title=title)
    axes[0, 0].legend(fontsize=8, loc="lower left")
    return figure

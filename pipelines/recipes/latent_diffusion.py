"""The few operations that every loop of latent diffusion is written with.

They take a pipeline of diffusers for its parts (tokenizer, text encoder, UNet, VAE, scheduler) and never call it. Any
Stable Diffusion of the first two generations will do, and SDXL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffusion_xray.tracer.errors import RecipeError

__all__ = [
    "Condition",
    "decode",
    "encode_pictures",
    "encode_prompts",
    "noise_and_x0",
    "predict",
    "predict_both",
    "require_unet",
    "starting_noise",
]


@dataclass(frozen=True, slots=True)
class Condition:
    """What the UNet is told of the picture."""

    embeddings: Tensor
    """Output of the text encoder, (batch, token, width)."""
    added: Mapping[str, Tensor] = field(default_factory=dict)
    """What SDXL is told beside it: pooled text embeddings and sizes."""


def require_unet(pipe: Any) -> Any:
    """`pipe` itself, if it is one that these functions are for.

    Raises:
        RecipeError: It has no UNet that is conditioned on text, or no VAE.
    """
    if type(getattr(pipe, "unet", None)).__name__ != "UNet2DConditionModel" or getattr(pipe, "vae", None) is None:
        raise RecipeError(
            f"this recipe works with the parts of Stable Diffusion 1.x, 2.x and XL, and a {type(pipe).__name__} "
            "has others: give --model one of these"
        )
    return pipe


@torch.no_grad()
def encode_prompts(pipe: Any, prompts: str | Sequence[str]) -> Condition:
    """Run the text encoder.

    Args:
        pipe: For its tokenizer and text encoder.
        prompts: One or several; "" is the unconditional one.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if getattr(pipe, "text_encoder_2", None) is not None:
        embeddings, _, pooled, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False)
        if pipe.config.get("force_zeros_for_empty_prompt"):  # as SDXL was trained
            told = torch.tensor([bool(prompt) for prompt in prompts]).to(pooled)
            embeddings, pooled = embeddings * told[:, None, None], pooled * told[:, None]
        height = width = pipe.unet.config.sample_size * pipe.vae_scale_factor
        sizes = torch.tensor([[height, width, 0, 0, height, width]]).repeat(len(prompts), 1)
        return Condition(embeddings, {"text_embeds": pooled, "time_ids": sizes.to(pooled)})
    tokens = pipe.tokenizer(
        prompts,
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return Condition(pipe.text_encoder(tokens.to(pipe.device))[0])


def starting_noise(pipe: Any, count: int, generator: torch.Generator) -> Tensor:
    """Standard normal latents (count, channel, y, x) of the size that the UNet was trained for."""
    size, channels = pipe.unet.config.sample_size, pipe.unet.config.in_channels
    return torch.randn(count, channels, size, size, generator=generator).to(pipe.device, pipe.unet.dtype)


def predict(
    pipe: Any,
    latents: Tensor,
    timestep: Tensor | float,
    condition: Condition,
    *,
    unconditional: Condition | None = None,
    guidance: float | Tensor = 1.0,
) -> Tensor:
    """What the UNet predicts, guided away from `unconditional` where that is given.

    Classifier-free guidance (Ho & Salimans 2022, eq. 6, with w + 1 = `guidance` as is usual):
    ``u + guidance * (c - u)``; u and c are the predictions without and with the condition, one batch in this order.

    Args:
        pipe: For its UNet.
        latents: x_t (batch, channel, y, x), already scaled where the scheduler asks for it.
        timestep: Of the training schedule, 0 to 999.
        condition: Of the same batch.
        unconditional: Of the same batch.
        guidance: The guidance scale; a tensor (batch, 1, 1, 1) gives each picture its own.

    Returns:
        As `latents`: noise, velocity or x0, whatever the model was trained to predict; see `noise_and_x0`.
    """
    if unconditional is None:
        return _unet(pipe, latents, timestep, condition)
    without, conditioned = predict_both(pipe, latents, timestep, condition, unconditional)
    return without + guidance * (conditioned - without)


def predict_both(
    pipe: Any, latents: Tensor, timestep: Tensor | float, condition: Condition, unconditional: Condition
) -> tuple[Tensor, Tensor]:
    """What the UNet predicts without and with the condition, in this order; `predict` tells the arguments."""
    added = {name: torch.cat([unconditional.added[name], tensor]) for name, tensor in condition.added.items()}
    both = Condition(torch.cat([unconditional.embeddings, condition.embeddings]), added)
    without, conditioned = _unet(pipe, torch.cat([latents, latents]), timestep, both).chunk(2)
    return without, conditioned


def noise_and_x0(pipe: Any, prediction: Tensor, latents: Tensor, alpha_bar: Tensor | float) -> tuple[Tensor, Tensor]:
    """Read a prediction as the noise and the clean latents that x_t = sqrt(ᾱ) x0 + sqrt(1 − ᾱ) ε is made of.

    Args:
        pipe: For its scheduler, which knows what the model predicts.
        prediction: Output of the UNet: the noise ε; the velocity v = sqrt(ᾱ) ε − sqrt(1 − ᾱ) x0 (Salimans & Ho 2022);
            or x0 itself.
        latents: x_t.
        alpha_bar: ᾱ_t, the share of variance that is signal.

    Returns:
        ε and x0, as `latents`.
    """
    alpha_bar = torch.as_tensor(alpha_bar, dtype=torch.float32).to(latents.device)
    signal, noise = alpha_bar.sqrt().to(latents.dtype), (1 - alpha_bar).sqrt().to(latents.dtype)
    kind = pipe.scheduler.config.prediction_type
    if kind == "epsilon":
        return prediction, (latents - noise * prediction) / signal
    if kind == "v_prediction":
        return signal * prediction + noise * latents, signal * latents - noise * prediction
    if kind == "sample":
        return (latents - signal * prediction) / noise, prediction
    raise RecipeError(f"no way to read a prediction of the kind {kind!r}: epsilon, v_prediction and sample are known")


@torch.no_grad()
def encode_pictures(pipe: Any, pictures: Tensor) -> Tensor:
    """Run the VAE's encoder; the mean of its distribution, scaled as the UNet expects it.

    Args:
        pipe: For its VAE.
        pictures: (batch, 3, height, width) in [0, 1].

    Returns:
        Latents (batch, channel, y, x).
    """
    vae = pipe.vae
    latents: Tensor = vae.encode((pictures * 2 - 1).to(pipe.device, vae.dtype)).latent_dist.mean
    scaled: Tensor = latents * vae.config.scaling_factor
    return scaled


@torch.no_grad()
def decode(pipe: Any, latents: Tensor) -> Tensor:
    """Run the VAE's decoder.

    Args:
        pipe: For its VAE.
        latents: (batch, channel, y, x), as the UNet knows them.

    Returns:
        Pictures (batch, 3, height, width), float32 in [0, 1] on the CPU.
    """
    vae = pipe.vae
    pictures: Tensor = vae.decode((latents / vae.config.scaling_factor).to(vae.dtype)).sample
    return (pictures / 2 + 0.5).clamp(0, 1).float().cpu()


def _unet(pipe: Any, latents: Tensor, timestep: Tensor | float, condition: Condition) -> Tensor:
    added = dict(condition.added) or None
    found: Tensor = pipe.unet(
        latents, timestep, encoder_hidden_states=condition.embeddings, added_cond_kwargs=added
    ).sample
    return found

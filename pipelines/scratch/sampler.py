"""Stable Diffusion: its parts, the denoising loop, and the three ways to begin it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_xray.tracer.errors import RecipeError

from .clip import TextEncoder
from .schedule import Schedule
from .unet import UNet
from .vae import VAE

if TYPE_CHECKING:
    from diffusion_xray.tracer import Tracer

__all__ = ["DEFAULT", "Method", "Settings", "StableDiffusion", "img2img", "inpaint", "txt2img"]

Method = Literal["ddim", "ddpm"]


@dataclass(frozen=True)
class StableDiffusion:
    """The parts. In the networks, latents have a standard deviation of about 1."""

    tokenizer: Any
    """Called as those of transformers: `tokenizer(prompt, padding="max_length", ...).input_ids`."""
    text_encoder: TextEncoder
    unet: UNet
    vae: VAE
    schedule: Schedule
    latent_size: int
    """Height and width of the latents that the UNet was trained with."""

    @property
    def parts(self) -> Mapping[str, Any]:
        """What a `Tracer` takes."""
        return {name: getattr(self, name) for name in ("tokenizer", "text_encoder", "unet", "vae")}

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The parts that have weights."""
        return {"text_encoder": self.text_encoder, "unet": self.unet, "vae": self.vae}

    def read(self, prompt: str) -> Tensor:
        """Embeddings (1, token, width) of a prompt."""
        length = self.text_encoder.position.num_embeddings
        tokens = self.tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        embeddings: Tensor = self.text_encoder(tokens.input_ids.to(self.text_encoder.position.weight.device))
        return embeddings


@dataclass(frozen=True)
class Settings:
    """How to draw."""

    steps: int = 25
    """Denoising steps from pure noise."""
    guidance: float = 7.5
    """How far to go from the prediction without the prompt towards that with it; 1 is all the way, and more beyond."""
    negative: str = ""
    """What not to draw, in place of no prompt."""
    method: Method = "ddim"


DEFAULT: Final = Settings()


@torch.no_grad()
def txt2img(
    model: StableDiffusion,
    prompt: str,
    generator: torch.Generator,
    settings: Settings = DEFAULT,
    tracer: Tracer | None = None,
) -> Tensor:
    """A picture from noise and words.

    Args:
        model: What draws.
        prompt: What to draw.
        generator: Of the starting noise, and of the noise that DDPM adds.
        settings: How to draw.
        tracer: Of `model.parts`; is told of every step.

    Returns:
        (1, 3, height, width) in [0, 1].
    """
    text = _read(model, prompt, settings)
    weight = model.unet.first.weight
    latents = _noise((1, weight.shape[1], model.latent_size, model.latent_size), weight, generator)
    return _draw(model, latents, text, settings, generator=generator, tracer=tracer)


@torch.no_grad()
def img2img(
    model: StableDiffusion,
    prompt: str,
    generator: torch.Generator,
    settings: Settings = DEFAULT,
    tracer: Tracer | None = None,
    *,
    picture: Tensor,
    strength: float = 0.8,
) -> Tensor:
    """A picture from another one, which is made noisy and denoised (Meng et al. 2022, SDEdit).

    Args:
        model: What draws.
        prompt: What to draw.
        generator: Of the noise.
        settings: How to draw.
        tracer: Of `model.parts`; is told of every step.
        picture: (1, 3, height, width) in [0, 1].
        strength: How noisy: the share of the steps that are done, above 0.

    Returns:
        As `picture`.
    """
    text = _read(model, prompt, settings)
    clean = _encode(model, picture, generator)
    steps = _share(settings.steps, strength)
    first = int(model.schedule.timesteps(settings.steps)[-steps])
    latents = model.schedule.add_noise(clean, _noise(clean.shape, clean, generator), first)
    return _draw(model, latents, text, settings, generator=generator, tracer=tracer, steps=steps)


@torch.no_grad()
def inpaint(
    model: StableDiffusion,
    prompt: str,
    generator: torch.Generator,
    settings: Settings = DEFAULT,
    tracer: Tracer | None = None,
    *,
    picture: Tensor,
    mask: Tensor,
    strength: float = 1.0,
) -> Tensor:
    """A part of a picture anew: after each step the rest is the original again, as noisy as the step left it.

    Lugmayr et al. 2022, RePaint, algorithm 1 without resampling.

    Args:
        model: What draws.
        prompt: What to draw.
        generator: Of the noise.
        settings: How to draw.
        tracer: Of `model.parts`; is told of every step.
        picture: (1, 3, height, width) in [0, 1].
        mask: (1, 1, height, width), 1 where to draw anew, else 0.
        strength: As in `img2img`; 1 begins with noise alone.

    Returns:
        As `picture`.
    """
    text = _read(model, prompt, settings)
    clean = _encode(model, picture, generator)
    noise = _noise(clean.shape, clean, generator)
    inside = F.interpolate(mask, clean.shape[-2:]).to(clean)
    steps = _share(settings.steps, strength)
    timesteps = model.schedule.timesteps(settings.steps)[-steps:].tolist()
    latents = noise if strength == 1 else model.schedule.add_noise(clean, noise, timesteps[0])

    def restore(latents: Tensor, step: int) -> Tensor:
        over = step + 1 == steps
        original = clean if over else model.schedule.add_noise(clean, noise, timesteps[step + 1])
        return (1 - inside) * original + inside * latents

    return _draw(model, latents, text, settings, generator=generator, tracer=tracer, steps=steps, restore=restore)


def _draw(
    model: StableDiffusion,
    latents: Tensor,
    text: Tensor,
    settings: Settings,
    *,
    generator: torch.Generator,
    tracer: Tracer | None,
    steps: int | None = None,
    restore: Callable[[Tensor, int], Tensor] = lambda latents, _: latents,
) -> Tensor:
    """The loop, of which the last `steps` are done, with `restore` after each; then the decoder."""
    schedule = model.schedule
    timesteps = schedule.timesteps(settings.steps)[-(steps or settings.steps) :]
    stride = len(schedule.alpha_bars) // settings.steps
    for step, t in enumerate(timesteps.tolist()):
        if tracer is not None:
            tracer.step(step, timestep=t)
        prediction = _predict(model.unet, latents, t, text, settings.guidance)
        noise, x0 = schedule.noise_and_x0(prediction, latents, t)
        if settings.method == "ddim":
            following = schedule.ddim(noise, x0, t - stride)
        else:
            following = schedule.ddpm(latents, x0, t, t - stride, _noise(latents.shape, latents, generator))
        if tracer is not None:
            tracer.record_latents(latents, model_output=prediction, next_latents=following, x0=x0)
        latents = restore(following, step)
    if tracer is not None:
        tracer.step(None)
    pictures = (model.vae.decode(latents) / 2 + 0.5).clamp(0, 1)
    if tracer is not None:
        tracer.record_images(pictures)
    return pictures


def _predict(unet: UNet, latents: Tensor, t: int, text: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6): without + guidance · (with − without), in one batch."""
    if guidance <= 1:
        prediction: Tensor = unet(latents, torch.tensor(t), text)
        return prediction
    without, given = unet(torch.cat([latents, latents]), torch.tensor(t), text).chunk(2)
    guided: Tensor = without + guidance * (given - without)
    return guided


def _read(model: StableDiffusion, prompt: str, settings: Settings) -> Tensor:
    """Embeddings of the prompt, after those of the negative one where there is guidance."""
    text = model.read(prompt)
    return torch.cat([model.read(settings.negative), text]) if settings.guidance > 1 else text


def _encode(model: StableDiffusion, picture: Tensor, generator: torch.Generator) -> Tensor:
    return model.vae.encode((2 * picture - 1).to(model.vae.from_latents.weight), generator)


def _noise(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal; the same on every device if the generator is on the CPU."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def _share(steps: int, strength: float) -> int:
    if not 0 < strength <= 1 or int(steps * strength) < 1:
        raise RecipeError(f"strength {strength} of {steps} steps leaves none: it is a share, above 0 and up to 1")
    return int(steps * strength)

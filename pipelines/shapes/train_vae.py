"""Train the autoencoder of the embedded model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn

from .architecture import make_vae
from .loop import Schedule, generator_for, train
from .world import BACKGROUNDS, COLOURS, IMAGE_SIZE, SHAPES, coverage, render, sample_scene

__all__ = ["psnr", "to_tensor", "train_vae"]

_SEED = 1
_KL_WEIGHT = 2e-4


def train_vae(folder: Path, *, steps: int, decoder_steps: int) -> AutoencoderKL:
    """Train on crops of crowded pictures, then on whole pictures; set the latents' scale; polish the decoder.

    Crowded pictures of overlapping shapes, some in colours the world does not have, teach edges and colours far
    faster per pixel than the sparse pictures of the world itself. The last part leaves the encoder, and with it the
    latents, as they are: the decoder alone learns the small shapes, whose points are a cell of the latents wide.
    """
    torch.manual_seed(_SEED)
    vae = make_vae()

    def loss(step: int) -> Tensor:
        generator = generator_for(_SEED, step)
        pictures = _batch(step, whole=step >= 0.6 * steps)
        posterior = vae.encode(pictures).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        error = vae.decode(latents).sample - pictures
        kl: Tensor = posterior.kl().mean() / latents[0].numel()
        total: Tensor = error.abs().mean() + 2 * error.square().mean() + _KL_WEIGHT * kl
        return total

    schedule = Schedule(steps, peak=4e-3, warmup=100 / steps, decay=0.7, average=0.99)
    train(vae, loss, schedule, folder / "vae.pt", title="autoencoder")
    with torch.no_grad():
        latents = torch.cat(
            [vae.encode(_scenes(np.random.default_rng([_SEED, 2, i]), 64)).latent_dist.mean for i in range(8)]
        )
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    _polish_decoder(vae, folder, steps=decoder_steps)
    return vae


def _polish_decoder(vae: AutoencoderKL, folder: Path, *, steps: int) -> None:
    """Train the decoder on the encoder's fixed latents, half of the pictures with small objects."""
    decoder = nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([_SEED, 3, step])
        scenes = [sample_scene(rng) for _ in range(24)]
        scenes.sort(key=lambda scene: min(thing.radius for thing in scene.objects))
        chosen = scenes[:10] + [scenes[at] for at in rng.integers(10, 24, 6)]
        pictures = to_tensor(np.stack([render(scene)[0] for scene in chosen]))
        with torch.no_grad():
            posterior = vae.encode(pictures).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator_for(_SEED + 1, step))
            latents = posterior.mean + posterior.std * noise
        error = vae.decode(latents).sample - pictures
        total: Tensor = error.abs().mean() + 4 * error.square().mean()
        return total

    schedule = Schedule(steps, peak=1.5e-3, warmup=100 / steps, decay=0.8, average=0.995)
    train(decoder, loss, schedule, folder / "decoder.pt", title="decoder")


def psnr(vae: AutoencoderKL, pictures: Tensor) -> float:
    """Peak signal-to-noise ratio of a round trip in dB, for pictures in [-1, 1]: 10 log10(2² / MSE)."""
    with torch.no_grad():
        restored = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / F.mse_loss(restored, pictures)))


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures (n, height, width, 3) in 0..255 to a tensor (n, 3, height, width) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def _batch(step: int, *, whole: bool) -> Tensor:
    rng = np.random.default_rng([_SEED, 1, step])
    if whole:
        return torch.cat([_scenes(rng, 12), to_tensor(np.stack([_crowd(rng) for _ in range(4)]))])
    half = IMAGE_SIZE // 2
    crops = []
    for _ in range(8):
        crowd = _crowd(rng)
        for _ in range(4):
            top, left = rng.integers(0, half + 1, 2)
            crops.append(crowd[top : top + half, left : left + half])
    return to_tensor(np.stack(crops))


def _scenes(rng: np.random.Generator, count: int) -> Tensor:
    return to_tensor(np.stack([render(sample_scene(rng))[0] for _ in range(count)]))


def _crowd(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture of 4 to 10 shapes that may overlap, one in four of them in an arbitrary colour."""
    colours, backgrounds = list(COLOURS.values()), list(BACKGROUNDS.values())
    picture = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    picture[:] = backgrounds[rng.integers(len(backgrounds))] if rng.random() < 0.8 else rng.integers(0, 256, 3)
    for _ in range(rng.integers(4, 11)):
        colour = colours[rng.integers(len(colours))] if rng.random() < 0.75 else rng.integers(0, 256, 3)
        x, y = rng.uniform(0, IMAGE_SIZE, 2)
        mask = coverage(SHAPES[rng.integers(len(SHAPES))], x, y, rng.uniform(7, 15))
        picture += mask[..., None] * (np.asarray(colour, np.float32) - picture)
    return picture.round().astype(np.uint8)

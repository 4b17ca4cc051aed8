"""Train the embedded model from nothing: ``python -m diffusion_xray.pipelines.shapes.train``.

Resumable: interrupt it and call it again. On two CPU cores the defaults take about two hours.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from .architecture import make_scheduler
from .load import WEIGHTS
from .tokenizer import make_tokenizer
from .train_denoiser import train_denoiser
from .train_vae import train_vae

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Train the autoencoder, then the denoiser, and save half-precision weights."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_xray.pipelines.shapes.train", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("training"), help="folder of the checkpoints (%(default)s)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the weights go (the installed package)")
    parser.add_argument("--vae-steps", type=int, default=4500, help="autoencoder steps (%(default)s)")
    parser.add_argument("--decoder-steps", type=int, default=3000, help="decoder steps after it (%(default)s)")
    parser.add_argument(
        "--samples",
        type=int,
        nargs="+",
        default=(336_000, 96_000),
        help="pictures shown to the denoiser, one number for each cycle of the learning rate (%(default)s)",
    )
    parser.add_argument("--scenes", type=int, default=48_000, help="different pictures among them (%(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (%(default)s)")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    vae = train_vae(options.work, steps=options.vae_steps, decoder_steps=options.decoder_steps)
    unet, text_encoder = train_denoiser(vae, options.work, samples=options.samples, scenes=options.scenes)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=make_tokenizer(),
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(options.out, safe_serialization=True)
    print(f"saved {options.out}; measure it with: python -m diffusion_xray.pipelines.shapes.quality")


if __name__ == "__main__":
    main()

"""Stable Diffusion in plain PyTorch: CLIP's text encoder, the VAE, the UNet, and the loops of DDPM and DDIM.

To be read in this order: `blocks`, `clip`, `vae`, `unet`, `schedule`, `sampler`, `configs`, `weights`.
"""

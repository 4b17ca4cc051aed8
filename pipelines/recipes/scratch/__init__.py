"""Stable Diffusion without diffusers."""

"""The parts of latent diffusion one at a time: autoencoder, text encoder, starting noise, scheduler."""

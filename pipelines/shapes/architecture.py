"""The parts of the embedded model: genuine diffusers and transformers classes in small configurations."""

from __future__ import annotations

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .tokenizer import MAX_TOKENS
from .world import IMAGE_SIZE

__all__ = ["LATENT_SIZE", "make_scheduler", "make_text_encoder", "make_unet", "make_vae"]

LATENT_SIZE = IMAGE_SIZE // 4
"""Height and width of the latents: the VAE halves the picture twice."""

_TEXT_WIDTH = 64


def make_vae() -> AutoencoderKL:
    """The autoencoder: (3, 64, 64) pictures in [-1, 1] to (4, 16, 16) latents, 187 k parameters."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=IMAGE_SIZE,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder, trained together with the UNet: 2 layers, 4 heads, width 64."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_TEXT_WIDTH,
        intermediate_size=4 * _TEXT_WIDTH,
        projection_dim=_TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def make_unet() -> UNet2DConditionModel:
    """The denoiser: two resolutions, self- and cross-attention at 8x8, 2.2 M parameters."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 96),
        layers_per_block=1,
        attention_head_dim=4,  # diffusers' name for the number of heads
        cross_attention_dim=_TEXT_WIDTH,
        norm_num_groups=8,
    )


def make_scheduler() -> DDIMScheduler:
    """DDIM over a schedule whose last step is almost pure noise, so that flat backgrounds come out exact."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )

"""Pipelines without text: classes, pictures as conditions, or none; pixels, sounds, depths."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLTemporalDecoder,
    CMStochasticIterativeScheduler,
    ConsistencyModelPipeline,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EulerDiscreteScheduler,
    LDMSuperResolutionPipeline,
    MarigoldDepthPipeline,
    StableVideoDiffusionPipeline,
    UNet2DModel,
    UNetSpatioTemporalConditionModel,
    VQModel,
)

from .family import Foreign, foreign
from .parts import SIZE, WIDTH, image_encoder, image_processor, picture, sd_parts, unet

_NOTHING: dict[str, Any] = {}


def _pixels(**options: Any) -> UNet2DModel:
    defaults: dict[str, Any] = {
        "sample_size": SIZE,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
    }
    return UNet2DModel(**defaults | options)


@foreign(DDPMPipeline)
def ddpm() -> Foreign:
    """Pixels; the scheduler draws noise in each step."""
    pipeline = DDPMPipeline(unet=_pixels(), scheduler=DDPMScheduler())
    return Foreign(pipeline, {"num_inference_steps": 3, "output_type": "np", "batch_size": 2}, condition=_NOTHING)


@foreign(DDIMPipeline)
def ddim() -> Foreign:
    """A batch of two pictures, which is no guidance."""
    pipeline = DDIMPipeline(unet=_pixels(), scheduler=DDIMScheduler())
    call = {"num_inference_steps": 3, "output_type": "np", "batch_size": 2, "eta": 0.5}
    return Foreign(pipeline, call, condition=_NOTHING)


@foreign(ConsistencyModelPipeline)
def consistency() -> Foreign:
    """Two steps of a model that predicts the picture, timesteps rescaled, classes and no guidance."""
    network = _pixels(num_class_embeds=10, resnet_time_scale_shift="scale_shift")
    scheduler = CMStochasticIterativeScheduler(num_train_timesteps=40, sigma_min=0.002, sigma_max=80.0)
    pipeline = ConsistencyModelPipeline(unet=network, scheduler=scheduler)
    call = {"num_inference_steps": None, "timesteps": [22, 0], "class_labels": 3, "output_type": "np"}
    return Foreign(pipeline, call, condition={"class_labels": 4})


@foreign(LDMSuperResolutionPipeline)
def super_resolution() -> Foreign:
    """A picture beside the latents in the channels, which are pixels scaled by a quantised autoencoder."""
    autoencoder = VQModel(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        norm_num_groups=4,
        num_vq_embeddings=32,
    )
    pipeline = LDMSuperResolutionPipeline(vqvae=autoencoder, unet=_pixels(in_channels=6), scheduler=DDIMScheduler())
    call = {"image": picture(32), "num_inference_steps": 2, "output_type": "np"}
    return Foreign(pipeline, call, condition={"image": picture(32, seed=2)})


@foreign(MarigoldDepthPipeline)
def marigold() -> Foreign:
    """A depth, twice in a batch for an ensemble; the text is empty."""
    parts = sd_parts()
    pipeline = MarigoldDepthPipeline(
        unet=unet(in_channels=8),
        vae=parts["vae"],
        text_encoder=parts["text_encoder"],
        tokenizer=parts["tokenizer"],
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
        prediction_type="depth",
        scale_invariant=True,
        shift_invariant=True,
    )
    call = {"image": picture(), "num_inference_steps": 2, "ensemble_size": 2, "processing_resolution": 0}
    return Foreign(pipeline, call, result="prediction", condition={"image": picture(seed=2)})


@foreign(StableVideoDiffusionPipeline)
def stable_video() -> Foreign:
    """A video of a picture: frames before channels, EDM timesteps, guidance that grows from frame to frame."""
    pipeline = StableVideoDiffusionPipeline(
        vae=AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            latent_channels=4,
            layers_per_block=1,
            sample_size=SIZE,
        ),
        image_encoder=image_encoder(image_size=224, patch_size=112),
        unet=UNetSpatioTemporalConditionModel(
            sample_size=SIZE // 2,
            in_channels=8,
            out_channels=4,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            block_out_channels=(32, 64),
            layers_per_block=1,
            num_attention_heads=(2, 4),
            cross_attention_dim=WIDTH,
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
        ),
        scheduler=EulerDiscreteScheduler(
            prediction_type="v_prediction", use_karras_sigmas=True, timestep_type="continuous", sigma_max=700.0
        ),
        feature_extractor=image_processor(),
    )
    call = {"image": picture(), "height": SIZE, "width": SIZE, "num_frames": 2, "num_inference_steps": 2}
    call |= {"output_type": "np", "min_guidance_scale": 1.5, "max_guidance_scale": 3.0}
    return Foreign(pipeline, call, result="frames", condition={"image": picture(seed=2)})
